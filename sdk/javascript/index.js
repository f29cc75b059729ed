// What a Formwork plugin in JavaScript builds on. See index.d.ts for the types.
//
// A plugin is a folder with plugin.toml, package.json and the module that its `main` names (index.js), which exports one
// class:
//
//     import { Finding, InvalidSettings } from "formwork-plugin";
//
//     export default class {
//       constructor(form, settings) {
//         if (!("max" in settings)) throw new InvalidSettings("/max", "required", "say how long a message may be");
//         this.max = settings.max;
//       }
//
//       validate(submission) {
//         const { message = "" } = submission.data;
//         if (message.length <= this.max) return [];
//         return [Finding.error("/message", "too-long", `at most ${this.max} characters`, { limit: this.max })];
//       }
//     }
//
// The constructor is the contract's `prepare`: it runs once for a form version, may call no import and should not print;
// the host may snapshot what it leaves in memory and start every submission from that snapshot. The work method is named
// after the kind: `validate`, `classify`, `extract`, or `begin`, `export` and `end`.

import { InvalidForm, InvalidInput } from "./errors.js";

export { Internal, InvalidForm, InvalidInput, InvalidSettings, PluginError, Unavailable } from "./errors.js";

/** Facts by name, each as JSON text: what the contract calls details. */
export const details = (facts = {}) => Object.entries(facts).map(([name, value]) => [name, JSON.stringify(value)]);

const finding = (severity) => (pointer, code, message, facts) => ({
  pointer,
  code,
  message,
  severity,
  details: details(facts),
});

/** Findings by their weight. Only an error rejects the submission. */
export const Finding = { error: finding("error"), warning: finding("warning"), info: finding("info") };

/** A classifier's answer: the labels whose score reaches `threshold`, best first, and the scores of all. */
export function classification(scores, threshold, facts) {
  const ranked = Object.entries(scores).map(([name, score]) => ({ name, score }));
  ranked.sort((a, b) => b.score - a.score);
  return { labels: ranked.filter(({ score }) => score >= threshold), scores: ranked, details: details(facts) };
}

/**
 * An extracted field whose `content` stands at `index` of `text`, the string at `pointer`. JavaScript counts UTF-16
 * units, the contract counts code points: this is where the one becomes the other.
 */
export function field({ name, value, content, pointer, text, index, confidence, method, facts }) {
  const codePoints = (part) => [...part].length;
  const span = { pointer, offset: codePoints(text.slice(0, index)), length: codePoints(content) };
  return { name, value: JSON.stringify(value), content, confidence, spans: [span], method, details: details(facts) };
}

/** The JSON Pointer of these segments: `pointer("a/b", 0)` is `/a~1b/0`. */
export const pointer = (...names) =>
  names.map((name) => `/${String(name).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");

/** The segments of a JSON Pointer. Throws a RangeError for a text that is none. */
export function segments(text) {
  if (text === "") return [];
  if (!text.startsWith("/") || /~(?![01])/.test(text)) {
    throw new RangeError(`"${text}" is not a JSON Pointer: it starts with / and writes ~ as ~0`);
  }
  return text.slice(1).split("/").map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** The value a JSON Pointer leads to, or `undefined`. */
export function valueAt(data, text) {
  let value = data;
  for (const name of segments(text)) {
    if (value === null || typeof value !== "object" || !Object.hasOwn(value, name)) return undefined;
    if (Array.isArray(value) && !/^(0|[1-9][0-9]*)$/.test(name)) return undefined;
    value = value[name];
  }
  return value;
}

/** A published form version; its schemas are parsed when they are asked for. */
export class Form {
  #schema;

  constructor({ id, version, schema, schemas }) {
    this.id = id;
    this.version = version;
    this.schemaJson = schema;
    this.schemasJson = new Map(schemas);
  }

  get schema() {
    return (this.#schema ??= parse(this.schemaJson, InvalidForm));
  }

  /** The schema registered with the form under this URI, or `undefined`. */
  schemaOf(uri) {
    const text = this.schemasJson.get(uri);
    return text === undefined ? undefined : parse(text, InvalidForm);
  }
}

/** One submission and what the steps before this one made of it. */
export class Submission {
  #data;

  constructor({ id, submittedAt, data, results }) {
    this.id = id;
    this.submittedAt = submittedAt;
    this.dataJson = data;
    this.resultsJson = new Map(results.map(({ step, output }) => [step, output]));
  }

  get data() {
    return (this.#data ??= parse(this.dataJson, InvalidInput));
  }

  /** The recorded output of an earlier step, or `undefined`. */
  resultOf(step) {
    const output = this.resultsJson.get(step);
    return output === undefined ? undefined : JSON.parse(output);
  }
}

function parse(text, Wrong) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Wrong("", "json", `is not JSON: ${error.message}`);
  }
}
