// Between the contract's functions and a plugin's class. `formwork plugin build` makes this module the component's entry
// and writes the module below beside it: the plugin's class, and the methods that its kind asks for.
import { default as Plugin, methods } from "./formwork-app.js";
import { Form, Internal, InvalidSettings, PluginError, Submission } from "formwork-plugin";

const MESSAGE_CHARACTERS = 4000;

if (typeof Plugin !== "function") throw new TypeError("the plugin's module must export a class as its default");
for (const method of methods) {
  if (typeof Plugin.prototype?.[method] !== "function") {
    throw new TypeError(`the plugin's class must have a method named ${method}`);
  }
}

let plugin;

/** Runs `work` and turns what it throws into an error of the contract. */
function answer(work) {
  try {
    return work();
  } catch (error) {
    // The trap tells the host which limit it was; an answer would hide it.
    if (error instanceof Error && error.message === "out of memory") throw error;
    throw typed(error);
  }
}

function typed(error) {
  if (error instanceof PluginError) return { tag: error.tag, val: error.val };
  // What the host refused comes as an exception that holds the refusal.
  if (error instanceof Error && error.payload !== undefined) return hostError(error.payload) ?? internal(error);
  return internal(error);
}

function internal(error) {
  if (error instanceof Error) {
    return { tag: "internal", val: `${error.name}: ${error.message}\n${error.stack ?? ""}`.trim().slice(0, MESSAGE_CHARACTERS) };
  }
  return { tag: "internal", val: `thrown: ${String(error)}` };
}

/** What may pass becomes `unavailable`, so that the host tries again; a refusal for good becomes `internal`. */
function hostError(error) {
  const { tag, val } = error ?? {};
  switch (tag) {
    case "unavailable":
    case "unknown-model":
      return { tag: "unavailable", val };
    case "deadline-exceeded":
    case "cancelled":
      return { tag: "unavailable", val: `${tag} in a host call` };
    case "denied":
      return { tag: "internal", val: `the grant \`${val}\` is missing` };
    case "invalid-argument":
    case "internal":
      return { tag: "internal", val: `host call refused: ${val}` };
    case "limit-exceeded":
      return { tag: "internal", val: `host call refused: ${val.name} is limited to ${val.limit}, asked for ${val.asked}` };
    default:
      return undefined;
  }
}

function prepared() {
  if (plugin === undefined) throw new Internal("prepare was not called");
  return plugin;
}

export function prepare(form, settings) {
  answer(() => {
    const parsed = JSON.parse(settings) ?? {};
    if (typeof parsed !== "object" || Array.isArray(parsed)) throw new InvalidSettings("", "type", "must be an object");
    plugin = new Plugin(new Form(form), parsed);
  });
}

export const validation = {
  validate: (submission) => answer(() => prepared().validate(new Submission(submission))),
};

export const classifying = {
  classify: (submission) => answer(() => prepared().classify(new Submission(submission))),
};

export const extracting = {
  extract: (submission) => answer(() => prepared().extract(new Submission(submission))),
};

export const exporting = {
  begin: (sink) => answer(() => prepared().begin(sink)),
  export: (submissions, sink) =>
    answer(() => prepared().export(submissions.map((given) => new Submission(given)), sink)),
  end: (sink) => answer(() => prepared().end(sink)),
};
