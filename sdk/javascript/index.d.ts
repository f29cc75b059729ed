/** What a Formwork plugin in JavaScript or TypeScript builds on. The contract itself is wit/1.0.0. */

/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** Facts by name that stand beside a finding, a label or a field in the output. */
export type Facts = Record<string, Json>;

/** (name, JSON text) pairs. */
export type Details = [string, string][];

export interface Problem {
  /** JSON Pointer. */
  pointer: string;
  /** A stable code for programs. */
  code: string;
  /** What is wrong and how to fix it. */
  message: string;
}

export class Form {
  readonly id: string;
  readonly version: number;
  readonly schemaJson: string;
  /** The JSON Schema of a submission's data, parsed at the first use. */
  get schema(): any;
  schemaOf(uri: string): any;
}

export class Submission {
  readonly id: string;
  /** RFC 3339, UTC, milliseconds: `new Date(submittedAt)` reads it. */
  readonly submittedAt: string;
  readonly dataJson: string;
  /** The answers, parsed at the first use. */
  get data(): any;
  resultOf(step: string): any;
}

export interface Finding extends Problem {
  severity: "error" | "warning" | "info";
  details: Details;
}

export const Finding: Record<
  "error" | "warning" | "info",
  (pointer: string, code: string, message: string, facts?: Facts) => Finding
>;

export interface Label {
  name: string;
  /** Probability, 0 to 1. */
  score: number;
}

export interface Classification {
  labels: Label[];
  scores: Label[];
  details: Details;
}

export function classification(scores: Record<string, number>, threshold: number, facts?: Facts): Classification;

export interface Field {
  name: string;
  /** JSON text. */
  value: string;
  content: string;
  confidence: number;
  /** In Unicode code points. */
  spans: { pointer: string; offset: number; length: number }[];
  method: string;
  details: Details;
}

export interface Extraction {
  fields: Field[];
  missing: string[];
  details: Details;
}

export function field(found: {
  name: string;
  value: Json;
  content: string;
  /** Of the string the content stands in. */
  pointer: string;
  /** That string. */
  text: string;
  /** Where the content starts in it, as JavaScript counts. */
  index: number;
  confidence: number;
  method: string;
  facts?: Facts;
}): Field;

/** Where an exporter writes. */
export interface Sink {
  write(bytes: Uint8Array): number;
}

export function details(facts?: Facts): Details;
export function pointer(...names: (string | number)[]): string;
export function segments(pointer: string): string[];
export function valueAt(data: Json, pointer: string): any;

export class PluginError extends Error {}

declare class Problems extends PluginError {
  constructor(pointer: string, code: string, message: string);
  static of<T extends Problems>(this: new (pointer: string, code: string, message: string) => T, problems: Problem[]): T;
}

export class InvalidSettings extends Problems {}
export class InvalidForm extends Problems {}
export class InvalidInput extends Problems {}

export class Unavailable extends PluginError {
  constructor(why: string);
}

export class Internal extends PluginError {
  constructor(why: string);
}

export interface Validator {
  validate(submission: Submission): Finding[];
}

export interface Classifier {
  classify(submission: Submission): Classification;
}

export interface Extractor {
  extract(submission: Submission): Extraction;
}

export interface Exporter {
  begin(sink: Sink): void;
  /** Answers the number of records written. */
  export(submissions: Submission[], sink: Sink): number;
  end(sink: Sink): void;
}
