// Finds words with capitals, and fails in every way that a test asks for.
import { Internal, InvalidInput, Unavailable, field } from "formwork-plugin";
import embeddings from "formwork:plugin/embeddings@1.0.0";
import log from "formwork:plugin/log@1.0.0";

const faults = {
  exception: () => undefined.missing,
  unavailable: () => {
    throw new Unavailable("the register is being repaired");
  },
  refused: () => {
    throw new InvalidInput("/name", "unreadable", "write it in letters");
  },
  broken: () => {
    throw new Internal("the table is empty");
  },
  model: () => embeddings.embed("no-such-model", ["a"]),
  text: () => {
    throw "a text";
  },
  memory: () => {
    const kept = [];
    for (;;) kept.push(new Uint8Array(1 << 20));
  },
  loop: () => {
    for (;;);
  },
  recursion: () => {
    const deeper = () => deeper() + 1;
    deeper();
  },
  call: () => log.log("info", "from prepare", []),
};

export default class {
  constructor(form, settings) {
    this.prepared = `${form.id} ${JSON.stringify(form.schema)}`;
    if (settings.fault) faults[settings.fault]();
  }

  extract(submission) {
    const { fault, text = "" } = submission.data;
    if (fault) faults[fault]();
    log.log("info", "looking", [["step", String(submission.resultOf("before"))]]);
    const fields = [...text.matchAll(/[A-Z]{2,}/g)].map((match) =>
      field({
        name: "capitals",
        value: match[0].toLowerCase(),
        content: match[0],
        pointer: "/text",
        text,
        index: match.index,
        confidence: 1,
        method: "rule:capitals",
      }),
    );
    return { fields, missing: fields.length === 0 ? ["capitals"] : [], details: [["form", JSON.stringify(this.prepared)]] };
  }
}
