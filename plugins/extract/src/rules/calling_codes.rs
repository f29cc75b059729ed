//! Country calling codes and how long the numbers behind them are (ITU-T E.164, national numbering plans).

/// A country's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// ISO 3166-1 alpha-2.
    pub(crate) country: &'static str,
    /// Calling code without `+`.
    pub(crate) code: &'static str,
    /// What stands before a number inside the country and is dropped outside.
    pub(crate) trunk: &'static str,
    /// Digits of a national number without the trunk prefix.
    pub(crate) min: usize,
    /// Likewise, at most.
    pub(crate) max: usize,
}

const fn plan(country: &'static str, code: &'static str, trunk: &'static str, min: usize, max: usize) -> Plan {
    Plan {
        country,
        code,
        trunk,
        min,
        max,
    }
}

const PLANS: [Plan; 82] = [
    plan("AE", "971", "0", 8, 9),
    plan("AR", "54", "0", 10, 11),
    plan("AT", "43", "0", 7, 13),
    plan("AU", "61", "0", 9, 9),
    plan("BD", "880", "0", 8, 10),
    plan("BE", "32", "0", 8, 9),
    plan("BG", "359", "0", 7, 9),
    plan("BR", "55", "0", 10, 11),
    plan("BY", "375", "8", 9, 9),
    plan("CA", "1", "1", 10, 10),
    plan("CH", "41", "0", 9, 9),
    plan("CL", "56", "", 9, 9),
    plan("CN", "86", "0", 9, 11),
    plan("CO", "57", "", 8, 10),
    plan("CY", "357", "", 8, 8),
    plan("CZ", "420", "", 9, 9),
    plan("DE", "49", "0", 6, 13),
    plan("DK", "45", "", 8, 8),
    plan("DZ", "213", "0", 8, 9),
    plan("EE", "372", "", 7, 8),
    plan("EG", "20", "0", 8, 10),
    plan("ES", "34", "", 9, 9),
    plan("ET", "251", "0", 9, 9),
    plan("FI", "358", "0", 6, 11),
    plan("FR", "33", "0", 9, 9),
    plan("GB", "44", "0", 9, 10),
    plan("GH", "233", "0", 9, 9),
    plan("GL", "299", "", 6, 6),
    plan("GR", "30", "", 10, 10),
    plan("HK", "852", "", 8, 8),
    plan("HR", "385", "0", 8, 9),
    plan("HU", "36", "06", 8, 9),
    plan("ID", "62", "0", 8, 12),
    plan("IE", "353", "0", 7, 10),
    plan("IL", "972", "0", 8, 9),
    plan("IN", "91", "0", 10, 10),
    plan("IQ", "964", "0", 8, 10),
    plan("IR", "98", "0", 10, 10),
    plan("IS", "354", "", 7, 9),
    plan("IT", "39", "", 6, 11),
    plan("JO", "962", "0", 8, 9),
    plan("JP", "81", "0", 9, 10),
    plan("KE", "254", "0", 9, 9),
    plan("KR", "82", "0", 8, 10),
    plan("KW", "965", "", 8, 8),
    plan("LB", "961", "0", 7, 8),
    plan("LT", "370", "8", 8, 8),
    plan("LU", "352", "", 5, 11),
    plan("LV", "371", "", 8, 8),
    plan("MA", "212", "0", 9, 9),
    plan("MT", "356", "", 8, 8),
    plan("MX", "52", "", 10, 11),
    plan("MY", "60", "0", 8, 10),
    plan("NG", "234", "0", 8, 10),
    plan("NL", "31", "0", 9, 9),
    plan("NO", "47", "", 8, 8),
    plan("NZ", "64", "0", 8, 10),
    plan("PE", "51", "0", 8, 9),
    plan("PH", "63", "0", 8, 10),
    plan("PK", "92", "0", 9, 10),
    plan("PL", "48", "", 9, 9),
    plan("PT", "351", "", 9, 9),
    plan("QA", "974", "", 8, 8),
    plan("RO", "40", "0", 9, 9),
    plan("RS", "381", "0", 8, 9),
    plan("RU", "7", "8", 10, 10),
    plan("SA", "966", "0", 8, 9),
    plan("SE", "46", "0", 7, 10),
    plan("SG", "65", "", 8, 8),
    plan("SI", "386", "0", 8, 8),
    plan("SK", "421", "0", 9, 9),
    plan("TH", "66", "0", 8, 9),
    plan("TN", "216", "", 8, 8),
    plan("TR", "90", "0", 10, 10),
    plan("TW", "886", "0", 8, 9),
    plan("TZ", "255", "0", 9, 9),
    plan("UA", "380", "0", 9, 9),
    plan("UG", "256", "0", 9, 9),
    plan("US", "1", "1", 10, 10),
    plan("UY", "598", "0", 7, 8),
    plan("VN", "84", "0", 8, 10),
    plan("ZA", "27", "0", 9, 9),
];

/// The country's plan by its two letters, upper case.
pub(crate) fn of(country: &str) -> Option<Plan> {
    PLANS.iter().copied().find(|plan| plan.country == country)
}

/// The plan of a number with its calling code; several countries may share one.
pub(super) fn international(digits: &str) -> Option<Plan> {
    PLANS.iter().copied().find(|plan| {
        digits
            .strip_prefix(plan.code)
            .is_some_and(|rest| (plan.min..=plan.max).contains(&rest.len()))
    })
}
