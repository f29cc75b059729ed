//! All findings of one submission, bounded and without repetition.

use std::collections::HashSet;

use formwork_plugin::{Finding, Severity};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::documents::Documents;
use crate::findings::{Subject, describe};

/// Findings looked at beyond the reported ones, to say how many more there are. 100,000: a submission of a megabyte
/// can have more errors than anybody counts.
const MAX_COUNTED: usize = 100_000;

/// Reports at most `max` findings, then one of severity info that says how many more there are.
pub(crate) fn report(validator: &Validator, documents: &Documents, data: &Value, max: usize) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let mut seen = HashSet::new();
    let subject = Subject { documents, data };
    for error in validator.iter_errors(data) {
        // Schemas that share parts through `allOf` find the same mistake twice.
        for finding in describe(subject, &error) {
            if seen.insert((finding.pointer.clone(), finding.code.clone(), finding.message.clone()))
                && findings.len() < max
            {
                findings.push(finding);
            }
        }
        if seen.len() > MAX_COUNTED {
            break;
        }
    }
    let more = seen.len() - findings.len();
    if more > 0 {
        let noun = if more == 1 { "problem was" } else { "problems were" };
        let message = format!("{more} more {noun} found; correct these first and send it again");
        let mut finding = Finding::error("", "more-findings", message).with("count", &json!(more));
        finding.severity = Severity::Info;
        findings.push(finding);
    }
    findings
}
