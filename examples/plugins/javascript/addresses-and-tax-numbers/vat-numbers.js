// VAT numbers by country prefix: how they are written, and the check digits where the country has a rule for them. A
// number that passes may still not be registered; countries without a sum here are only checked for their form.

const digitsOf = (text) => [...text.replace(/\D/g, "")].map(Number);
const weighted = (digits, weights) => weights.reduce((sum, weight, index) => sum + weight * digits[index], 0);
const mod97 = (digits) => digits.reduce((rest, digit) => (rest * 10 + digit) % 97, 0);

function luhn(digits) {
  const sum = digits.toReversed().reduce((total, digit, index) => {
    const value = index % 2 === 1 ? digit * 2 : digit;
    return total + (value > 9 ? value - 9 : value);
  }, 0);
  return sum % 10 === 0;
}

/** ISO 7064, mod 11,10. */
function iso7064(digits) {
  let product = 10;
  for (const digit of digits.slice(0, -1)) {
    const sum = (digit + product) % 10 || 10;
    product = (2 * sum) % 11;
  }
  return (11 - product) % 10 === digits.at(-1);
}

function austria(digits) {
  const sum = digits.slice(0, 7).reduce((total, digit, index) => {
    return total + (index % 2 === 1 ? Math.floor(digit / 5) + ((digit * 2) % 10) : digit);
  }, 0);
  return (10 - ((sum + 4) % 10)) % 10 === digits[7];
}

function netherlands(text) {
  const digits = digitsOf(text.slice(2, 11));
  const byWeight = weighted(digits, [9, 8, 7, 6, 5, 4, 3, 2]) % 11 === digits[8];
  // Numbers of sole traders, since 2020: letters count from 10, + is 36 and * is 37.
  const values = [...text].map((sign) => (sign === "+" ? "36" : sign === "*" ? "37" : String(parseInt(sign, 36))));
  return byWeight || mod97([...values.join("")].map(Number)) === 1;
}

/** The check digit is 11 less the rest of a weighted sum; `odd` says what stands where that has two digits. */
const mod11 = (weights, odd) => (text) => {
  const digits = digitsOf(text);
  const check = 11 - (weighted(digits, weights) % 11);
  return (check > 9 ? odd(check) : check) === digits[weights.length];
};

const finland = mod11([7, 9, 10, 5, 8, 4, 2], (check) => (check === 11 ? 0 : NaN));
const portugal = mod11([9, 8, 7, 6, 5, 4, 3, 2], () => 0);
const poland = (text) => {
  const digits = digitsOf(text);
  return weighted(digits, [6, 5, 7, 2, 3, 4, 5, 6, 7]) % 11 === digits[9];
};
const denmark = (text) => weighted(digitsOf(text), [2, 7, 6, 5, 4, 3, 2, 1]) % 11 === 0;
const belgium = (text) => 97 - mod97(digitsOf(text).slice(0, 8)) === Number(text.slice(-2));
const luxembourg = (text) => Number(text.slice(2, 8)) % 89 === Number(text.slice(8));
const sweden = (text) => luhn(digitsOf(text).slice(0, 10));
const france = (text) => {
  // Keys with letters follow another rule; only their form is checked.
  if (!/^FR\d{11}$/.test(text)) return true;
  const siren = digitsOf(text).slice(2);
  return (12 + 3 * mod97(siren)) % 97 === Number(text.slice(2, 4));
};

const rules = {
  AT: ["ATU\\d{8}", "ATU13585627", (text) => austria(digitsOf(text))],
  BE: ["BE[01]\\d{9}", "BE0428759497", belgium],
  BG: ["BG\\d{9,10}", "BG175074752"],
  CY: ["CY\\d{8}[A-Z]", "CY10259033P"],
  CZ: ["CZ\\d{8,10}", "CZ25123891"],
  DE: ["DE[1-9]\\d{8}", "DE136695976", (text) => iso7064(digitsOf(text))],
  DK: ["DK\\d{8}", "DK13585628", denmark],
  EE: ["EE\\d{9}", "EE100931558"],
  ES: ["ES[A-Z0-9]\\d{7}[A-Z0-9]", "ESB58378431"],
  FI: ["FI\\d{8}", "FI20774740", finland],
  FR: ["FR[A-HJ-NP-Z0-9]{2}\\d{9}", "FR40303265045", france],
  HR: ["HR\\d{11}", "HR33392005961", (text) => iso7064(digitsOf(text))],
  HU: ["HU\\d{8}", "HU12892312"],
  IE: ["IE\\d[A-Z0-9+*]\\d{5}[A-W][A-I]?", "IE6433435F"],
  IT: ["IT\\d{11}", "IT00743110157", (text) => luhn(digitsOf(text))],
  LT: ["LT(?:\\d{9}|\\d{12})", "LT119511515"],
  LU: ["LU\\d{8}", "LU15027442", luxembourg],
  LV: ["LV\\d{11}", "LV40003521600"],
  MT: ["MT\\d{8}", "MT11679112"],
  NL: ["NL[A-Z0-9+*]{12}", "NL004495445B01", netherlands],
  PL: ["PL\\d{10}", "PL8567346215", poland],
  PT: ["PT[1-9]\\d{8}", "PT501964843", portugal],
  RO: ["RO[1-9]\\d{1,9}", "RO18547290"],
  SE: ["SE\\d{10}(?!00)\\d{2}", "SE123456789701", sweden],
  SI: ["SI[1-9]\\d{7}", "SI50223054"],
  SK: ["SK[1-9]\\d{9}", "SK2022749619"],
};

/** Blanks, dots and dashes are how people group the digits. */
const clean = (text) => text.replace(/[\s.-]/g, "").toUpperCase();

export const vatNumbers = new Map(
  Object.entries(rules).map(([country, [pattern, example, holds]]) => [country, { pattern, example, holds, clean }]),
);
