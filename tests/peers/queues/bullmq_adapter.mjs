// BullMQ on Redis. Contract: README.md. QUEUE_BULK=1 adds by addBulk, 100 at a time; QUEUE_WORKERS is the number of
// worker processes. `worker` as the argument: be such a process.
import { spawn } from "node:child_process";
import { openSync, writeSync } from "node:fs";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { createRequire } from "node:module";
import { join } from "node:path";

// The packages are in the cache, not beside this file.
const require = createRequire(join(process.env.QUEUE_NODE_MODULES, "x.js"));
const { Queue, Worker } = require("bullmq");

const env = process.env;
const [jobs, producers, payloadBytes, concurrency] = ["JOBS", "PRODUCERS", "PAYLOAD_BYTES", "CONCURRENCY"].map((name) =>
  Number(env[`QUEUE_${name}`]),
);
const [rate, seconds] = [Number(env.QUEUE_RATE), Number(env.QUEUE_SECONDS)];
const WARM_UP_JOBS = 50;
const BULK = 100;

const url = new URL(env.QUEUE_REDIS_URL);
const connection = { host: url.hostname, port: Number(url.port) };
const options = {
  attempts: 3,
  backoff: { type: "exponential", delay: 1000 },
  removeOnComplete: { age: 3600 },
  removeOnFail: false,
};

const nowUs = () => Math.round((performance.timeOrigin + performance.now()) * 1000);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const say = (event) => console.log(JSON.stringify(event));

function document(number, sentUs) {
  const head = JSON.stringify({ number, sent_us: sentUs, padding: "" }).length;
  return { number, sent_us: sentUs, padding: "x".repeat(Math.max(0, payloadBytes - head)) };
}

async function work() {
  const runs = openSync(join(env.QUEUE_FOLDER, `bullmq-${process.pid}.runs`), "a");
  const worker = new Worker(
    "peer",
    async (job) => {
      writeSync(runs, `${job.data.number} ${job.data.sent_us} ${nowUs()}\n`);
      return {};
    },
    { connection, concurrency, lockDuration: 30000 },
  );
  worker.on("error", (error) => console.error(error));
  process.on("SIGTERM", async () => {
    await worker.close();
    process.exit(0);
  });
}

function startWorkers() {
  const workers = [];
  for (let index = 0; index < Number(env.QUEUE_WORKERS ?? 1); index++) {
    const file = fileURLToPath(import.meta.url);
    workers.push(spawn(process.execPath, [file, "worker"], { stdio: ["ignore", "ignore", "inherit"] }));
  }
  return workers;
}

async function waitFor(queue, count) {
  let last = -1;
  let changed = Date.now();
  for (;;) {
    const completed = await queue.getCompletedCount();
    if (completed >= count) return completed;
    if (completed !== last) [last, changed] = [completed, Date.now()];
    if (Date.now() - changed > 30000) return completed;
    await sleep(5);
  }
}

async function enqueue(queue) {
  let next = 0;
  const one = async () => {
    while (next < jobs) {
      if (env.QUEUE_BULK === "1") {
        const first = next;
        next = Math.min(jobs, next + BULK);
        const bulk = Array.from({ length: next - first }, (_, index) => ({
          name: "job",
          data: document(first + index, nowUs()),
          opts: options,
        }));
        await queue.addBulk(bulk);
      } else {
        await queue.add("job", document(next++, nowUs()), options);
      }
    }
  };
  await Promise.all(Array.from({ length: producers }, one));
}

async function paced(queue, count) {
  const began = performance.now();
  const one = async (place) => {
    for (let index = place; index < count; index += producers) {
      const due = began + (index / rate) * 1000;
      const wait = due - performance.now();
      if (wait > 0) await sleep(wait);
      const late = performance.now() - due;
      const sentUs = nowUs() - (late > 2 ? Math.round(late * 1000) : 0);
      await queue.add("job", document(index, sentUs), options);
    }
  };
  await Promise.all(Array.from({ length: producers }, (_, place) => one(place)));
}

async function main() {
  const queue = new Queue("peer", { connection });
  await queue.waitUntilReady();
  let workers;
  if (rate === 0) {
    say({ event: "begin", phase: "enqueue" });
    let began = performance.now();
    await enqueue(queue);
    say({ event: "end", phase: "enqueue", jobs, seconds: (performance.now() - began) / 1000 });
    say({ event: "begin", phase: "complete" });
    workers = startWorkers();
    const first = await waitFor(queue, WARM_UP_JOBS);
    began = performance.now();
    const found = await waitFor(queue, jobs);
    say({ event: "end", phase: "complete", jobs: found - first, seconds: (performance.now() - began) / 1000 });
  } else {
    workers = startWorkers();
    const before = await queue.add("job", document(-1, nowUs()), options);
    await waitFor(queue, 1);
    await before.remove();
    const count = Math.floor(rate * seconds);
    say({ event: "begin", phase: "paced" });
    const began = performance.now();
    await paced(queue, count);
    const elapsed = (performance.now() - began) / 1000;
    await waitFor(queue, count);
    say({ event: "end", phase: "paced", jobs: count, seconds: elapsed });
  }
  for (const worker of workers) {
    worker.kill("SIGTERM");
    await once(worker, "exit");
  }
  await queue.close();
}

if (process.argv[2] === "worker") await work();
else await main();
