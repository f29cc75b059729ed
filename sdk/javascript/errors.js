// The contract's errors. Anything else that is thrown reaches the host as `internal` with its stack.

/** Why a plugin did not answer. */
export class PluginError extends Error {
  constructor(tag, val, message) {
    super(message);
    this.name = new.target.name;
    this.tag = tag;
    this.val = val;
  }
}

const say = (pointer, message) => `${pointer || "(whole)"}: ${message}`;

class Problems extends PluginError {
  constructor(tag, pointer, code, message) {
    super(tag, [{ pointer, code, message }], say(pointer, message));
  }

  /** The same error with several `{ pointer, code, message }`, at least one. */
  static of(problems) {
    const [first] = problems;
    const error = new this(first.pointer, first.code, first.message);
    error.val = problems;
    return error;
  }
}

/** The step's settings are wrong. Pointers go into the settings. */
export class InvalidSettings extends Problems {
  constructor(pointer, code, message) {
    super("invalid-settings", pointer, code, message);
  }
}

/** The form's schema cannot be used. Pointers go into the schema. */
export class InvalidForm extends Problems {
  constructor(pointer, code, message) {
    super("invalid-form", pointer, code, message);
  }
}

/** This submission can never be processed. Pointers go into its data. It is not tried again. */
export class InvalidInput extends Problems {
  constructor(pointer, code, message) {
    super("invalid-input", pointer, code, message);
  }
}

/** Something the plugin needs is not there now. The host tries again later. */
export class Unavailable extends PluginError {
  constructor(why) {
    super("unavailable", why, why);
  }
}

/** A bug or a broken assumption in the plugin. It is not tried again. */
export class Internal extends PluginError {
  constructor(why) {
    super("internal", why, why);
  }
}
