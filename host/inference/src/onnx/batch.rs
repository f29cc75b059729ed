//! Which texts run together.
//!
//! **Problem.** Many callers embed at the same time, some one text, some a thousand. **Promise.** A run holds texts of
//! nearly the same length within a budget of tokens; callers take turns, so that a single text waits for at most one run
//! for each other caller, however many texts the others have. **Cost.** A thousand texts of one caller take longer while
//! others ask. **Rejected.** First come first served (one bulk call holds up everybody); padding to the longest of whatever
//! waits (a padded token costs as much as a real one).

use super::encoder::Tokens;
use crate::limits;

/// Texts of one call that have tokens and no vector yet, by length, the longest last.
pub(crate) struct Lane {
    pub(crate) texts: Vec<Tokens>,
    /// Runs by itself: a run that it shared failed.
    pub(crate) alone: bool,
}

/// One text of a batch: the lane it came from and its tokens.
pub(crate) type Chosen = (usize, Tokens);

/// Takes the texts of the next run out of the lanes. The first lane that has any decides their length; others fill up what
/// it leaves. Empty if no lane has texts.
pub(crate) fn choose(lanes: &mut [&mut Lane], batch_tokens: usize) -> Vec<Chosen> {
    let Some(leader) = lanes.iter().position(|lane| !lane.texts.is_empty()) else {
        return Vec::new();
    };
    let Some(longest) = lanes[leader].texts.pop() else {
        return Vec::new();
    };
    let width = longest.ids.len().max(1);
    let room = (batch_tokens / width).clamp(1, limits::MAX_BATCH_TEXTS);
    let shortest = width.saturating_sub(padding(width));
    let mut batch = vec![(leader, longest)];
    let alone = lanes[leader].alone;
    for (index, lane) in lanes.iter_mut().enumerate().skip(leader) {
        if index != leader && (alone || lane.alone) {
            continue;
        }
        while batch.len() < room {
            let fitting = lane.texts.partition_point(|text| text.ids.len() <= width);
            let Some(next) = fitting.checked_sub(1) else { break };
            if lane.texts[next].ids.len() < shortest {
                break;
            }
            batch.push((index, lane.texts.remove(next)));
        }
    }
    batch
}

/// Tokens that a text may be padded by. An eighth costs less than the run that it saves.
fn padding(width: usize) -> usize {
    (width / limits::PADDING_DIVISOR).max(limits::MIN_PADDING_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::{Lane, Tokens, choose};

    fn lane(lengths: &[usize]) -> Lane {
        let mut lengths = lengths.to_vec();
        lengths.sort_unstable();
        let texts = lengths.into_iter().enumerate().map(|(index, length)| Tokens {
            index,
            ids: vec![0; length],
            truncated: false,
        });
        Lane {
            texts: texts.collect(),
            alone: false,
        }
    }

    fn lengths(lanes: &mut [Lane], batch_tokens: usize) -> Vec<(usize, usize)> {
        let mut lanes: Vec<&mut Lane> = lanes.iter_mut().collect();
        let batch = choose(&mut lanes, batch_tokens);
        batch.iter().map(|(lane, text)| (*lane, text.ids.len())).collect()
    }

    #[test]
    fn similar_lengths_run_together_within_the_budget() {
        let mut lanes = [lane(&[64, 63, 62, 10, 9])];
        assert_eq!(lengths(&mut lanes, 512), [(0, 64), (0, 63), (0, 62)]);
        assert_eq!(lengths(&mut lanes, 512), [(0, 10), (0, 9)]);
        assert_eq!(lengths(&mut lanes, 512), []);
        assert_eq!(lengths(&mut [lane(&[64, 64, 64])], 128), [(0, 64), (0, 64)]);
        assert_eq!(lengths(&mut [lane(&[300])], 128), [(0, 300)], "one text always runs");
    }

    #[test]
    fn other_callers_fill_up_and_one_whose_run_failed_is_alone() {
        let mut lanes = [lane(&[20]), lane(&[40, 20, 19, 4])];
        assert_eq!(lengths(&mut lanes, 512), [(0, 20), (1, 20), (1, 19)]);
        let mut lanes = [lane(&[20]), lane(&[20])];
        lanes[1].alone = true;
        assert_eq!(lengths(&mut lanes, 512), [(0, 20)]);
        assert_eq!(lengths(&mut lanes, 512), [(1, 20)]);
    }
}
