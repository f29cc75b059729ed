//! Step definitions, and the check that they form a pipeline.

use crate::{Pool, Priority};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Steps one form may have. A submission's tasks are read in one go, so the number is bounded.
pub const MAX_STEPS: usize = 64;

/// Characters a step's name may have; it becomes part of export keys and log lines.
pub const MAX_NAME_LENGTH: usize = 64;

/// What happens to the submission when this step says that it is not valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReject {
    /// The pipeline ends with status `rejected`.
    #[default]
    Stop,
    /// The steps after it run all the same.
    Continue,
}

/// The part of a step definition that decides order; the rest (plugin, settings) is the caller's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The step's name, unique in its form: letters, digits, `-` and `_`.
    pub name: String,
    /// The pool its tasks wait in.
    #[serde(default)]
    pub pool: Pool,
    /// The order inside the pool.
    #[serde(default)]
    pub priority: Priority,
    /// The steps it waits for. `None`: the step before it in the list. Empty: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<String>>,
    /// What happens when it rejects the submission.
    #[serde(default)]
    pub on_reject: OnReject,
}

impl Step {
    /// A step that follows the one before it, with default pool and priority.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            pool: Pool::default(),
            priority: Priority::default(),
            after: None,
            on_reject: OnReject::default(),
        }
    }

    /// The same step in another pool.
    #[must_use]
    pub fn in_pool(mut self, pool: Pool) -> Self {
        self.pool = pool;
        self
    }

    /// The same step, waiting for exactly these steps.
    #[must_use]
    pub fn after<const N: usize>(mut self, steps: [&str; N]) -> Self {
        self.after = Some(steps.map(str::to_owned).to_vec());
        self
    }

    /// The same step, not stopping the pipeline when it rejects.
    #[must_use]
    pub fn continue_on_reject(mut self) -> Self {
        self.on_reject = OnReject::Continue;
        self
    }
}

/// Why steps do not form a pipeline. Every variant has the place as a JSON pointer into the form definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// More than [`MAX_STEPS`] steps.
    #[error("{pointer}: a form has at most {MAX_STEPS} steps, found {count}")]
    TooManySteps {
        /// `/pipeline`.
        pointer: String,
        /// How many there are.
        count: usize,
    },
    /// A name that is empty, too long or has other characters than letters, digits, `-` and `_`.
    #[error("{pointer}: step name {name:?} must be 1 to {MAX_NAME_LENGTH} letters, digits, '-' or '_'")]
    BadName {
        /// Where the name is.
        pointer: String,
        /// The name.
        name: String,
    },
    /// Two steps with one name.
    #[error("{pointer}: step name {name:?} is already used by /pipeline/{first}")]
    DuplicateName {
        /// Where the second one is.
        pointer: String,
        /// The name.
        name: String,
        /// The index of the first one.
        first: usize,
    },
    /// `after` names a step that does not exist.
    #[error("{pointer}: unknown step {name:?}, expected one of: {known}")]
    UnknownStep {
        /// Where the name is.
        pointer: String,
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// `after` names one step twice.
    #[error("{pointer}: step {name:?} is named twice")]
    DuplicateDependency {
        /// Where the second mention is.
        pointer: String,
        /// The name.
        name: String,
    },
    /// Steps wait for each other.
    #[error("{pointer}: steps wait for each other: {}", path.join(" -> "))]
    Cycle {
        /// The `after` entry (or the step, when it waits by list order) that closes the cycle.
        pointer: String,
        /// The names along the cycle; the first is repeated at the end.
        path: Vec<String>,
    },
}

impl PlanError {
    /// The place of the error as a JSON pointer, such as `/pipeline/2/after/0`.
    #[must_use]
    pub fn pointer(&self) -> &str {
        match self {
            Self::TooManySteps { pointer, .. }
            | Self::BadName { pointer, .. }
            | Self::DuplicateName { pointer, .. }
            | Self::UnknownStep { pointer, .. }
            | Self::DuplicateDependency { pointer, .. }
            | Self::Cycle { pointer, .. } => pointer,
        }
    }
}

/// A checked pipeline: unique names, known dependencies, no cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
    /// For each step, the indexes of the steps it waits for.
    pub(super) waits_for: Vec<Vec<usize>>,
}

impl Plan {
    /// Checks steps and resolves names.
    ///
    /// # Errors
    /// A [`PlanError`] for the first thing that is wrong, with its place.
    pub fn try_new(steps: Vec<Step>) -> Result<Self, PlanError> {
        if steps.len() > MAX_STEPS {
            return Err(PlanError::TooManySteps {
                pointer: "/pipeline".into(),
                count: steps.len(),
            });
        }
        let index = index_names(&steps)?;
        let waits_for = resolve(&steps, &index)?;
        find_cycle(&steps, &waits_for)?;
        drop(index);
        Ok(Self { steps, waits_for })
    }

    /// The steps in the order of the form.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The indexes of the steps that the given step waits for.
    #[must_use]
    pub fn dependencies(&self, step: usize) -> &[usize] {
        self.waits_for.get(step).map_or(&[], Vec::as_slice)
    }
}

fn index_names(steps: &[Step]) -> Result<HashMap<&str, usize>, PlanError> {
    let mut index = HashMap::with_capacity(steps.len());
    for (position, step) in steps.iter().enumerate() {
        let pointer = || format!("/pipeline/{position}/name");
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let length = step.name.len();
        if length == 0 || length > MAX_NAME_LENGTH || !step.name.chars().all(legal) {
            return Err(PlanError::BadName {
                pointer: pointer(),
                name: step.name.clone(),
            });
        }
        if let Some(first) = index.insert(step.name.as_str(), position) {
            return Err(PlanError::DuplicateName {
                pointer: pointer(),
                name: step.name.clone(),
                first,
            });
        }
    }
    Ok(index)
}

fn resolve(steps: &[Step], index: &HashMap<&str, usize>) -> Result<Vec<Vec<usize>>, PlanError> {
    let mut waits_for = Vec::with_capacity(steps.len());
    for (position, step) in steps.iter().enumerate() {
        let Some(after) = &step.after else {
            waits_for.push(position.checked_sub(1).into_iter().collect());
            continue;
        };
        let mut resolved = Vec::with_capacity(after.len());
        for (entry, name) in after.iter().enumerate() {
            let pointer = || format!("/pipeline/{position}/after/{entry}");
            let Some(&target) = index.get(name.as_str()) else {
                let known: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
                return Err(PlanError::UnknownStep {
                    pointer: pointer(),
                    name: name.clone(),
                    known: known.join(", "),
                });
            };
            if resolved.contains(&target) {
                return Err(PlanError::DuplicateDependency {
                    pointer: pointer(),
                    name: name.clone(),
                });
            }
            resolved.push(target);
        }
        waits_for.push(resolved);
    }
    Ok(waits_for)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Unseen,
    OnPath,
    Done,
}

/// Depth-first search; its depth is bounded by [`MAX_STEPS`].
fn find_cycle(steps: &[Step], waits_for: &[Vec<usize>]) -> Result<(), PlanError> {
    fn visit(
        step: usize,
        steps: &[Step],
        waits_for: &[Vec<usize>],
        marks: &mut [Mark],
        path: &mut Vec<usize>,
    ) -> Result<(), PlanError> {
        marks[step] = Mark::OnPath;
        path.push(step);
        for (entry, &target) in waits_for[step].iter().enumerate() {
            match marks[target] {
                Mark::Done => {}
                Mark::Unseen => visit(target, steps, waits_for, marks, path)?,
                Mark::OnPath => {
                    let start = path.iter().position(|&on_path| on_path == target).unwrap_or(0);
                    let cycle = path[start..].iter().chain([&target]);
                    let pointer = match steps[step].after {
                        Some(_) => format!("/pipeline/{step}/after/{entry}"),
                        None => format!("/pipeline/{step}"),
                    };
                    let path = cycle.map(|&member| steps[member].name.clone()).collect();
                    return Err(PlanError::Cycle { pointer, path });
                }
            }
        }
        path.pop();
        marks[step] = Mark::Done;
        Ok(())
    }

    let mut marks = vec![Mark::Unseen; steps.len()];
    for step in 0..steps.len() {
        if marks[step] == Mark::Unseen {
            visit(step, steps, waits_for, &mut marks, &mut Vec::new())?;
        }
    }
    Ok(())
}
