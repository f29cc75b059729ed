// Postal codes by country, and VAT numbers with their check digits. The constructor compiles what the form needs; the work
// method only applies it. A check says nothing about values that are missing or no texts: that is the schema's part.

import { Finding, InvalidSettings, pointer, segments, valueAt } from "formwork-plugin";

import { postalCodes } from "./postal-codes.js";
import { vatNumbers } from "./vat-numbers.js";

const LISTS = {
  postal_codes: { table: postalCodes, needsCountry: true },
  vat_numbers: { table: vatNumbers, needsCountry: false },
};

export default class {
  constructor(form, settings) {
    const problems = [];
    this.checks = [];
    for (const name of Object.keys(settings)) {
      if (!Object.hasOwn(LISTS, name)) problems.push(problem([name], "unknown", `\`${name}\` is not known here`));
    }
    for (const [name, { table, needsCountry }] of Object.entries(LISTS)) {
      const entries = settings[name] ?? [];
      if (!Array.isArray(entries)) problems.push(problem([name], "type", "must be a list"));
      else entries.forEach((entry, index) => this.#add(entry, [name, index], table, needsCountry, problems));
    }
    if (problems.length === 0 && this.checks.length === 0) {
      problems.push(problem([], "empty", "name at least one postal code or VAT number to check"));
    }
    if (problems.length > 0) throw InvalidSettings.of(problems);
  }

  validate(submission) {
    return this.checks.flatMap((check) => check(submission.data));
  }

  #add(entry, path, table, needsCountry, problems) {
    const before = problems.length;
    const { at, country, default_country: fallback, ...rest } = Object(entry);
    for (const name of Object.keys(rest)) problems.push(problem([...path, name], "unknown", `\`${name}\` is not known here`));
    checkPointer(at, [...path, "at"], problems);
    if (country !== undefined) checkPointer(country, [...path, "country"], problems);
    if (fallback !== undefined && !table.has(fallback)) {
      const known = [...table.keys()].join(", ");
      problems.push(problem([...path, "default_country"], "country", `must be one of: ${known}`));
    }
    if (needsCountry && country === undefined && fallback === undefined) {
      problems.push(problem(path, "required", "give `country`, `default_country` or both"));
    }
    if (problems.length > before) return;
    const rules = new Map([...table].map(([code, rule]) => [code, compile(rule)]));
    this.checks.push((data) => check(data, { at, country, fallback, rules }));
  }
}

const problem = (path, code, message) => ({ pointer: pointer(...path), code, message });

function checkPointer(text, path, problems) {
  try {
    if (typeof text !== "string") throw new RangeError("must be a JSON Pointer");
    segments(text);
  } catch (error) {
    problems.push(problem(path, "pointer", error.message));
  }
}

/** A table's rule with its regular expression compiled and tried once, so that a snapshot holds it ready. */
function compile({ pattern, example, holds = () => true, clean = (text) => text.trim().toUpperCase() }) {
  const regex = new RegExp(`^(?:${pattern})$`);
  regex.test(example);
  return { example, fits: (text) => regex.test(clean(text)), holds: (text) => holds(clean(text)) };
}

function check(data, { at, country, fallback, rules }) {
  const value = valueAt(data, at);
  if (typeof value !== "string" || value.trim() === "") return [];
  const named = country === undefined ? undefined : valueAt(data, country);
  const own = /^[A-Z]{2}/i.test(value) ? value.slice(0, 2) : undefined;
  const code = String(named ?? fallback ?? own ?? "").trim().toUpperCase();
  const rule = rules.get(code);
  // Countries without a rule are not guessed at.
  if (rule === undefined) return [];
  if (!rule.fits(value)) {
    const message = `is not written as in ${code}; a right one is, for example, ${rule.example}`;
    return [Finding.error(at, "format", message, { country: code, example: rule.example })];
  }
  if (!rule.holds(value)) {
    return [Finding.error(at, "check-digit", "has a wrong check digit: compare it with the document", { country: code })];
  }
  return [];
}
