//! The actor that owns one GGUF model and its context.
//!
//! Problem: a llama.cpp context serves one thread, a generation may take minutes, and a caller may go
//! away at any token. Promise: one step (a part of one prompt, or one token of one text) at a time; who
//! is next is decided before each ([`super::turns`]); a text that has no native sequence free for it
//! takes the place of one that had its turn, whose state is set aside; deadline, cancellation and
//! shutdown end a step within a few milliseconds, a running one too; no input ends the process. Cost:
//! setting aside and putting back takes milliseconds per hundred tokens, at most once in
//! [`limits::TURN_TOKENS`]. Rejected: several texts in one native step, see [`super::turns`]; holding
//! the permit for a whole generation, see [`crate::permits`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use prometheus::IntCounter;

use super::chat_prompt::ChatPrompt;
use super::completion::{Event, FinishReason, Summary};
use super::generator::{Job, Settings};
use super::grammar_cache::GrammarCache;
use super::metrics::{FALLBACKS, FIRST_TOKEN, GENERATIONS, PREFIX_BYTES, PREFIXES, SPEED};
use super::native::{Context, Model, Step, Token};
use super::prefix_cache::{PrefixCache, Source};
use super::sampling::Sampler;
use super::sequence::{Place, Sequence};
use super::slots::Slots;
use super::text_stream::TextStream;
use super::turns::Turns;
use crate::call::{CallContext, Priority};
use crate::cpu_budget::LOOK_EVERY;
use crate::error::Error;
use crate::limits;
use crate::metrics;

pub(crate) struct Actor<'m> {
    settings: &'m Settings,
    model: &'m Model,
    context: Context<'m>,
    chat: ChatPrompt,
    /// Tokens that must not appear in a text.
    never: Vec<Token>,
    slots: Slots,
    prefixes: PrefixCache,
    grammars: GrammarCache<'m>,
    turns: Turns,
    /// Jobs taken from the queue and not begun, in their order; counted in `waiting_count` with those
    /// still in the queue.
    waiting: Vec<Job>,
    waiting_count: Arc<AtomicUsize>,
    running: Vec<Sequence<'m>>,
    /// Steps so far.
    steps: u64,
    /// The text of one token; kept for its capacity.
    piece: Vec<u8>,
    counters: Counters,
}

/// Who gets a native sequence next.
struct Next {
    due: f64,
    since: Instant,
    priority: Priority,
    what: What,
}

enum What {
    /// Index into `waiting`.
    Job(usize),
    /// Index into `running`.
    Aside(usize),
}

struct Counters {
    prompt: IntCounter,
    cached: IntCounter,
    output: IntCounter,
    refusals: IntCounter,
}

impl<'m> Actor<'m> {
    pub(crate) fn new(
        settings: &'m Settings,
        model: &'m Model,
        context: Context<'m>,
        chat: ChatPrompt,
        prefixes: PrefixCache,
        waiting_count: Arc<AtomicUsize>,
    ) -> Self {
        let name = settings.id.name.as_str();
        let tokens = |kind: &str| metrics::TOKENS.with_label_values(&[name, kind]);
        Self {
            settings,
            model,
            context,
            chat,
            never: model.markers(),
            slots: Slots::new(settings.prefix_slots),
            prefixes,
            grammars: GrammarCache::new(model, name),
            turns: Turns::default(),
            waiting: Vec::new(),
            waiting_count,
            running: Vec::new(),
            steps: 0,
            piece: Vec::new(),
            counters: Counters {
                prompt: tokens("prompt"),
                cached: tokens("cached"),
                output: tokens("output"),
                refusals: FALLBACKS.with_label_values(&[name]),
            },
        }
    }

    /// One job will come that was not counted when it was handed over.
    pub(crate) fn expect_one(&self) {
        self.waiting_count.fetch_add(1, Ordering::AcqRel);
    }

    /// Serves jobs until their queue is closed and nothing is left to do.
    pub(crate) fn run(&mut self, jobs: &Receiver<Job>) {
        loop {
            let open = self.take_in(jobs);
            self.drop_given_up();
            self.begin();
            self.show();
            match self.next() {
                Some(index) => self.step(index),
                None if self.stand_still() => {}
                None if !open => break,
                None => {}
            }
        }
        while self.prefixes.write_one() {}
    }

    /// Takes all jobs that have come; waits for one if there is nothing else to do. False when no more
    /// will come.
    fn take_in(&mut self, jobs: &Receiver<Job>) -> bool {
        loop {
            match jobs.try_recv() {
                Ok(job) => self.waiting.push(job),
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) if !self.waiting.is_empty() || !self.running.is_empty() => return true,
                Err(TryRecvError::Empty) if self.prefixes.write_one() => {}
                Err(TryRecvError::Empty) => match jobs.recv() {
                    Ok(job) => self.waiting.push(job),
                    Err(_) => return false,
                },
            }
        }
    }

    /// Waits a moment when all who could go on have used up their CPU budgets; false when nobody could go on.
    fn stand_still(&self) -> bool {
        let placed = || self.running.iter().filter(|sequence| sequence.slot().is_some());
        let Some(wait) = placed().filter_map(|sequence| sequence.call.overdrawn()).min() else {
            return false;
        };
        let wait = wait.min(LOOK_EVERY);
        std::thread::sleep(wait);
        for budget in placed().filter_map(|sequence| sequence.call.budget.as_ref()) {
            budget.stood_still(wait);
        }
        true
    }

    fn check(&self, call: &CallContext) -> Result<(), Error> {
        if self.settings.shutdown.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        call.check()
    }

    /// Answers those whose caller is gone or late.
    fn drop_given_up(&mut self) {
        let mut index = 0;
        while index < self.waiting.len() {
            match self.check(&self.waiting[index].call) {
                Ok(()) => index += 1,
                Err(error) => {
                    let job = self.waiting.remove(index);
                    self.refuse(job, error);
                }
            }
        }
        let mut index = 0;
        while index < self.running.len() {
            match self.check(&self.running[index].call) {
                Ok(()) => index += 1,
                Err(error) => self.finish(index, Err(error)),
            }
        }
    }

    fn refuse(&mut self, job: Job, error: Error) {
        self.waiting_count.fetch_sub(1, Ordering::AcqRel);
        self.count(&job.call, Some(&error));
        // A caller that left has nobody to tell.
        let _ = job.started.send(Err(error));
    }

    fn count(&self, call: &CallContext, error: Option<&Error>) {
        let outcome = error.map_or("ok", Error::code);
        metrics::CALLS
            .with_label_values(&[self.settings.id.name.as_str(), call.owner.as_str(), outcome])
            .inc();
    }

    fn show(&self) {
        let aside = self.running.iter().filter(|sequence| sequence.slot().is_none()).count();
        let name = self.settings.id.name.as_str();
        let states = [
            ("waiting", self.waiting.len()),
            ("running", self.running.len() - aside),
            ("set_aside", aside),
        ];
        for (state, count) in states {
            GENERATIONS
                .with_label_values(&[name, state])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Gives native sequences to those who are due, as long as there are any.
    fn begin(&mut self) {
        loop {
            let waiting = self.waiting.iter().enumerate().map(|(index, job)| Next {
                due: self.turns.due(&job.call),
                since: job.queued,
                priority: job.call.priority,
                what: What::Job(index),
            });
            let aside = self
                .running
                .iter()
                .enumerate()
                .filter_map(|(index, sequence)| match sequence.place {
                    Place::Slot(_) => None,
                    Place::Aside { since, .. } => Some(Next {
                        due: self.turns.due(&sequence.call),
                        since,
                        priority: sequence.call.priority,
                        what: What::Aside(index),
                    }),
                });
            let next = waiting
                .chain(aside)
                .min_by(|a, b| a.due.total_cmp(&b.due).then(a.since.cmp(&b.since)));
            let Some(next) = next else { return };
            if !self.slots.any_free() && !self.set_one_aside(&next) {
                return;
            }
            match next.what {
                What::Aside(index) => self.put_back(index),
                What::Job(index) => {
                    let job = self.waiting.remove(index);
                    self.begin_job(job);
                }
            }
        }
    }

    /// Makes room by setting aside a text that has had its turn, or is of lower priority than the one
    /// that comes: the one that is due last.
    fn set_one_aside(&mut self, next: &Next) -> bool {
        let aside = self.running.iter().filter(|sequence| sequence.slot().is_none()).count();
        if aside >= limits::MAX_SET_ASIDE {
            return false;
        }
        let last = (0..self.running.len())
            .map(|index| (index, &self.running[index]))
            .filter(|(_, sequence)| {
                let had_turn = sequence.output_tokens - sequence.tokens_at_turn >= limits::TURN_TOKENS;
                sequence.slot().is_some() && (had_turn || sequence.call.priority < next.priority)
            })
            .map(|(index, sequence)| (index, self.turns.due(&sequence.call)))
            .filter(|(_, due)| *due >= next.due)
            .max_by(|(_, a), (_, b)| a.total_cmp(b));
        let Some((index, _)) = last else { return false };
        let Some(slot) = self.running[index].slot() else {
            return false;
        };
        let Ok(state) = self.context.save(slot) else {
            return false;
        };
        if !self.prefixes.lend(state.len() as u64) {
            return false;
        }
        self.running[index].place = Place::Aside {
            tokens: self.slots.tokens(slot).to_vec(),
            state,
            since: Instant::now(),
        };
        self.slots.give_back(slot);
        true
    }

    fn put_back(&mut self, index: usize) {
        let Some(slot) = self.slots.oldest() else { return };
        let Place::Aside { tokens, state, .. } = &self.running[index].place else {
            return;
        };
        self.context.forget(slot, 0);
        self.slots.truncate(slot, 0);
        let bytes = state.len() as u64;
        match self.context.restore(slot, state) {
            Ok(()) => {
                self.slots.extend(slot, tokens);
                self.slots.take(slot);
                self.prefixes.give_back(bytes);
                let sequence = &mut self.running[index];
                sequence.place = Place::Slot(slot);
                sequence.tokens_at_turn = sequence.output_tokens;
            }
            Err(reason) => self.finish(index, Err(Error::Native(reason))),
        }
    }

    fn begin_job(&mut self, job: Job) {
        let begun = Instant::now();
        let prepared = self
            .check(&job.call)
            .and_then(|()| job.call.metered(1, || self.prepare(&job, begun)));
        match prepared {
            Ok(sequence) => {
                self.waiting_count.fetch_sub(1, Ordering::AcqRel);
                metrics::QUEUE_WAIT
                    .with_label_values(&[self.settings.id.name.as_str()])
                    .observe(job.queued.elapsed().as_secs_f64());
                self.turns.took(&job.call, begun.elapsed());
                // If nobody waits for this, the call is cancelled, which the next look sees.
                let _ = job.started.send(Ok(()));
                self.running.push(sequence);
            }
            Err(error) => self.refuse(job, error),
        }
    }

    /// Reads the request and gives it a slot that holds as much of its prompt as can be had.
    fn prepare(&mut self, job: &Job, begun: Instant) -> Result<Sequence<'m>, Error> {
        let settings = self.settings;
        let _permit = settings.permits.acquire();
        let request = &job.request;
        let prompt = self.chat.tokens(self.model, &request.system, &request.prompt);
        let context = settings.context_tokens as usize;
        let count = prompt.tokens.len();
        if count >= context {
            return Err(Error::TooLarge {
                what: "tokens of the prompt, with room for an answer",
                limit: context.saturating_sub(1) as u64,
                got: count as u64,
            });
        }
        let room = u32::try_from(context - count).unwrap_or(u32::MAX);
        let grammar = match &request.json_schema {
            None => None,
            Some(schema) => Some(self.grammars.get(schema)?),
        };
        let (slot, cached) = self.place(&prompt.tokens)?;
        self.slots.take(slot);
        self.counters.cached.inc_by(cached as u64);
        Ok(Sequence {
            prompt: prompt.tokens,
            prefix: prompt.prefix,
            cached,
            sampler: Sampler::new(grammar, request.temperature, request.seed),
            stream: TextStream::new(request.stop.clone()),
            max_tokens: request.max_tokens.min(room),
            output_tokens: 0,
            next: None,
            place: Place::Slot(slot),
            stepped: 0,
            tokens_at_turn: 0,
            call: job.call.clone(),
            events: job.events.clone(),
            queued: job.queued,
            begun,
            first_token: None,
        })
    }

    /// Finds a free slot, makes it hold the longest beginning of the prompt that is known, and answers
    /// how long that is.
    fn place(&mut self, prompt: &[Token]) -> Result<(usize, usize), Error> {
        let full = || Error::Native("no sequence is free".to_owned());
        let (longest, in_slot) = self.slots.longest(prompt).ok_or_else(full)?;
        let oldest = self.slots.oldest().ok_or_else(full)?;
        let whole = !self.model.can_rewind();
        let kept = self.prefixes.longest(prompt, whole);
        let name = self.settings.id.name.as_str();
        let from = |source: &str| PREFIXES.with_label_values(&[name, source]).inc();
        if kept > in_slot {
            let context = &mut self.context;
            context.forget(oldest, 0);
            self.slots.truncate(oldest, 0);
            let mut refused = None;
            if let Some((state, tokens, shared, source)) = self.prefixes.get(prompt, whole) {
                match context.restore(oldest, state) {
                    Ok(()) => {
                        self.slots.extend(oldest, tokens);
                        let cached = self.rewind(oldest, shared)?;
                        from(match source {
                            Source::Memory => "memory",
                            Source::Disk => "disk",
                        });
                        return Ok((oldest, cached));
                    }
                    Err(reason) => {
                        tracing::warn!(model = name, reason, "a kept prefix is not used");
                        refused = Some(tokens.to_vec());
                    }
                }
            }
            if let Some(tokens) = refused {
                self.prefixes.forget(&tokens);
            }
        }
        let worth_it = in_slot * limits::PREFIX_MATCH_DIVISOR >= prompt.len();
        let slot = if worth_it { longest } else { oldest };
        let shared = super::slots::shared(self.slots.tokens(slot), prompt);
        let cached = self.rewind(slot, shared)?;
        from(if cached >= limits::MIN_PREFIX_TOKENS {
            "sequence"
        } else {
            "none"
        });
        Ok((slot, cached))
    }

    /// Makes the slot hold exactly its first `keep` tokens; answers how many it could keep.
    fn rewind(&mut self, slot: usize, keep: usize) -> Result<usize, Error> {
        if self.slots.tokens(slot).len() == keep {
            return Ok(keep);
        }
        let kept = if self.context.forget(slot, keep) {
            keep
        } else if self.context.forget(slot, 0) {
            // Some architectures cannot forget a part of their state.
            0
        } else {
            return Err(Error::Native("a sequence cannot be cleared".to_owned()));
        };
        self.slots.truncate(slot, kept);
        Ok(kept)
    }

    /// Whose step is next, among those that have a sequence and CPU budget left.
    fn next(&self) -> Option<usize> {
        (0..self.running.len())
            .filter(|index| self.running[*index].slot().is_some() && self.running[*index].call.overdrawn().is_none())
            .min_by(|a, b| {
                let key = |index: &usize| {
                    let sequence = &self.running[*index];
                    (self.turns.due(&sequence.call), sequence.stepped)
                };
                let ((a, a_stepped), (b, b_stepped)) = (key(a), key(b));
                a.total_cmp(&b).then(a_stepped.cmp(&b_stepped))
            })
    }

    fn step(&mut self, index: usize) {
        self.steps += 1;
        self.running[index].stepped = self.steps;
        let begun = Instant::now();
        let outcome = self.advance(index);
        self.turns.took(&self.running[index].call, begun.elapsed());
        match outcome {
            Ok(None) => {}
            Ok(Some(reason)) => self.finish(index, Ok(reason)),
            Err(error) => self.finish(index, Err(error)),
        }
    }

    /// Evaluates a part of the prompt or the last token; draws the next one when there is something to
    /// draw it from. Answers why the text ended, if it did.
    fn advance(&mut self, index: usize) -> Result<Option<FinishReason>, Error> {
        let alone = self.running.len() == 1;
        let sequence = &self.running[index];
        let Some(slot) = sequence.slot() else {
            return Ok(None);
        };
        let held = self.slots.tokens(slot).len();
        let (tokens, wanted) = match sequence.next {
            Some(token) => (vec![token], true),
            None => {
                let most = if alone {
                    limits::PROMPT_BATCH_TOKENS
                } else {
                    limits::SHARED_PROMPT_BATCH_TOKENS
                };
                // Stops where the prefix ends, so that just the prefix can be kept.
                let to = if held < sequence.prefix && self.worth_keeping(sequence) {
                    sequence.prefix
                } else {
                    sequence.prompt.len()
                };
                let end = (held + most).min(to);
                (sequence.prompt[held..end].to_vec(), end == sequence.prompt.len())
            }
        };
        let _permit = self.settings.permits.acquire();
        self.evaluate(index, slot, &tokens, wanted)?;
        if wanted {
            return self.draw(index);
        }
        let sequence = &self.running[index];
        if held + tokens.len() == sequence.prefix && self.worth_keeping(sequence) {
            match self.context.save(slot) {
                Ok(state) => self.prefixes.put(&sequence.prompt[..sequence.prefix], state),
                Err(reason) => tracing::warn!(reason, "an evaluated prefix is not kept"),
            }
            PREFIX_BYTES
                .with_label_values(&[self.settings.id.name.as_str()])
                .set(i64::try_from(self.prefixes.memory_bytes()).unwrap_or(i64::MAX));
        }
        Ok(None)
    }

    fn worth_keeping(&self, sequence: &Sequence<'_>) -> bool {
        sequence.prefix >= limits::MIN_PREFIX_TOKENS && !self.prefixes.holds(&sequence.prompt[..sequence.prefix])
    }

    /// Evaluates tokens at the slot's end.
    fn evaluate(&mut self, index: usize, slot: usize, tokens: &[Token], wanted: bool) -> Result<(), Error> {
        let held = self.slots.tokens(slot).len();
        let (call, shutdown) = (&self.running[index].call, &self.settings.shutdown);
        let given_up = || shutdown.is_cancelled() || call.check().is_err();
        let outcome = call.metered(self.settings.threads, || {
            self.context.evaluate(slot, held, tokens, wanted, &given_up)
        });
        match outcome {
            Ok(Step::Done) => {
                if self.running[index].next.is_none() {
                    self.counters.prompt.inc_by(tokens.len() as u64);
                }
                self.slots.extend(slot, tokens);
                Ok(())
            }
            Ok(Step::Stopped) => {
                self.context.forget(slot, held);
                self.check(&self.running[index].call)?;
                Err(Error::Native("a step was given up for no reason".to_owned()))
            }
            Err(reason) => {
                // What the sequence holds now is unknown: forget it.
                self.context.forget(slot, 0);
                self.slots.truncate(slot, 0);
                Err(Error::Native(reason))
            }
        }
    }

    fn draw(&mut self, index: usize) -> Result<Option<FinishReason>, Error> {
        let logits = self.context.logits().map_err(Error::Native)?;
        let sequence = &mut self.running[index];
        let Sequence { call, sampler, .. } = &mut *sequence;
        let drawn = call.metered(1, || sampler.draw(logits, &self.never))?;
        if sequence.first_token.is_none() {
            sequence.first_token = Some(Instant::now());
            FIRST_TOKEN
                .with_label_values(&[self.settings.id.name.as_str(), sequence.call.owner.as_str()])
                .observe(sequence.queued.elapsed().as_secs_f64());
        }
        if self.model.ends(drawn.token) {
            return Ok(Some(FinishReason::Stop));
        }
        sequence.sampler.accept(drawn.token)?;
        sequence.output_tokens += 1;
        self.counters.output.inc();
        self.piece.clear();
        self.model.piece(drawn.token, &mut self.piece);
        let (text, stopped) = sequence.stream.push(&self.piece);
        sequence.send(text, 1, drawn.logprob);
        sequence.next = Some(drawn.token);
        Ok(if stopped {
            Some(FinishReason::Stop)
        } else if sequence.output_tokens >= sequence.max_tokens {
            Some(FinishReason::Length)
        } else {
            None
        })
    }

    fn finish(&mut self, index: usize, outcome: Result<FinishReason, Error>) {
        let sequence = self.running.swap_remove(index);
        match &sequence.place {
            Place::Slot(slot) => self.slots.give_back(*slot),
            Place::Aside { state, .. } => self.prefixes.give_back(state.len() as u64),
        }
        self.count(&sequence.call, outcome.as_ref().err());
        self.counters.refusals.inc_by(u64::from(sequence.sampler.fallbacks()));
        let name = self.settings.id.name.as_str();
        metrics::RUN
            .with_label_values(&[name])
            .observe(sequence.begun.elapsed().as_secs_f64());
        if let Some(first) = sequence.first_token
            && sequence.output_tokens > 1
        {
            SPEED
                .with_label_values(&[name, sequence.call.owner.as_str()])
                .observe(f64::from(sequence.output_tokens - 1) / first.elapsed().as_secs_f64().max(1e-6));
        }
        let outcome = outcome.map(|reason| {
            let rest = sequence.stream.rest();
            if !rest.is_empty() {
                sequence.send(rest.to_owned(), 0, 0.0);
            }
            Summary {
                model: self.settings.id.clone(),
                reason,
                prompt_tokens: u32::try_from(sequence.prompt.len()).unwrap_or(u32::MAX),
                cached_tokens: u32::try_from(sequence.cached).unwrap_or(u32::MAX),
                output_tokens: sequence.output_tokens,
            }
        });
        let _ = sequence.events.send(Event::End(outcome));
    }
}
