//! From similarities to probabilities.
//!
//! **Problem.** A cosine of 0.45 may be a sure match for one form and noise for another. **Promise.** Scores are calibrated
//! probabilities: of all texts that score 0.8, about four in five have that label. **Cost.** The constants are fitted for one
//! encoder; another one needs its own run of `scripts/calibrate_classify.py`. **Rejected.** A threshold on the best cosine:
//! it depends on how many labels and examples a form has.

use crate::calibration as fitted;

/// How similar one window of the text is to one label.
#[derive(Debug, Clone, Default)]
pub(crate) struct Similarity {
    /// To the description.
    pub(crate) description: f32,
    /// To each example.
    pub(crate) examples: Vec<f32>,
}

impl Similarity {
    /// How strongly this window speaks for the label.
    fn evidence(&self) -> f32 {
        let mut sorted = self.examples.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let Some(&best) = sorted.first() else {
            let [constant, description] = fitted::WITHOUT_EXAMPLES;
            return constant + description * self.description;
        };
        let top = &sorted[..sorted.len().min(3)];
        let mean = top.iter().sum::<f32>() / top.len() as f32;
        let [constant, description, first, three] = match sorted.len() {
            1 => fitted::ONE_EXAMPLE,
            2..=3 => fitted::FEW_EXAMPLES,
            _ => fitted::MORE_EXAMPLES,
        };
        constant + description * self.description + first * best + three * mean
    }
}

/// The probability of each label. `windows` holds, for each window of the text, its similarity to each label.
///
/// Not `multiple`: they and the probability of "none" add up to 1. `multiple`: each stands for itself.
pub(crate) fn probabilities(windows: &[Vec<Similarity>], multiple: bool) -> Vec<f32> {
    let Some(first) = windows.first() else {
        return Vec::new();
    };
    let labels = first.len();
    let without = first.iter().filter(|label| label.examples.is_empty()).count();
    let without = without as f32 / labels.max(1) as f32;
    let [scale, constant, by_labels, by_windows, by_missing] = if windows.len() == 1 {
        fitted::ONE_WINDOW
    } else {
        fitted::SEVERAL_WINDOWS
    };
    let none =
        constant + by_labels * (labels as f32).ln() + by_windows * (windows.len() as f32).ln() + by_missing * without;
    let evidence: Vec<Vec<f32>> = windows
        .iter()
        .map(|window| window.iter().map(|label| scale * label.evidence()).collect())
        .collect();
    let strongest: Vec<&Vec<f32>> = (0..labels)
        .filter_map(|label| evidence.iter().max_by(|a, b| a[label].total_cmp(&b[label])))
        .collect();
    if multiple {
        return strongest
            .iter()
            .enumerate()
            .map(|(label, window)| alone(window, label, none))
            .collect();
    }
    let pooled: Vec<f32> = strongest
        .iter()
        .enumerate()
        .map(|(label, window)| window[label])
        .collect();
    let total = log_sum_exp(pooled.iter().copied().chain([none]));
    pooled.iter().map(|evidence| (evidence - total).exp()).collect()
}

/// The probability of one label, whatever the others are.
fn alone(window: &[f32], label: usize, none: f32) -> f32 {
    let own = window[label];
    let others = || {
        window
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != label)
            .map(|(_, evidence)| *evidence)
    };
    // A single label has no rival but "none".
    let best = others().fold(f32::NEG_INFINITY, f32::max);
    let best = if best.is_finite() { best } else { none };
    let [constant, over_none, over_best, over_all] = fitted::MULTIPLE;
    let z = constant
        + over_none * (own - none)
        + over_best * (own - best)
        + over_all * (own - log_sum_exp(others().chain([none])));
    1.0 / (1.0 + (-z).exp())
}

fn log_sum_exp(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let max = values.clone().fold(f32::NEG_INFINITY, f32::max);
    max + values.map(|value| (value - max).exp()).sum::<f32>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(description: f32, examples: &[f32]) -> Similarity {
        Similarity {
            description,
            examples: examples.to_vec(),
        }
    }

    #[test]
    fn a_clear_match_is_nearly_sure_and_noise_is_nothing() {
        let clear = vec![vec![
            label(0.6, &[0.9, 0.7, 0.6, 0.5]),
            label(0.1, &[0.1, 0.1, 0.0, 0.0]),
        ]];
        let noise = vec![vec![
            label(0.05, &[0.1, 0.1, 0.1, 0.0]),
            label(0.1, &[0.1, 0.1, 0.0, 0.0]),
        ]];
        for multiple in [false, true] {
            assert!(probabilities(&clear, multiple)[0] > 0.9);
            assert!(probabilities(&noise, multiple).iter().all(|score| *score < 0.2));
        }
    }

    #[test]
    fn single_scores_leave_room_for_none() {
        let window = vec![vec![label(0.4, &[]), label(0.4, &[0.5]), label(0.3, &[0.5, 0.4])]];
        let sum: f32 = probabilities(&window, false).iter().sum();
        assert!(sum > 0.0 && sum < 1.0, "{sum}");
    }

    #[test]
    fn the_strongest_window_counts_for_each_label() {
        let one = label(0.6, &[0.9, 0.8, 0.7, 0.7]);
        let no = label(0.0, &[0.1, 0.0, 0.0, 0.0]);
        let windows = vec![vec![one.clone(), no.clone()], vec![no.clone(), one]];
        let scores = probabilities(&windows, true);
        assert!(scores.iter().all(|score| *score > 0.8), "{scores:?}");
        assert!((scores[0] - scores[1]).abs() < 1e-6);
    }

    #[test]
    fn more_similarity_never_lowers_a_score() {
        for multiple in [false, true] {
            let scores: Vec<f32> = (0..=10)
                .map(|step| step as f32 / 10.0)
                .map(|x| probabilities(&[vec![label(x, &[x, x, x, x, x]), label(0.3, &[0.3])]], multiple)[0])
                .collect();
            assert!(scores.windows(2).all(|pair| pair[0] <= pair[1]), "{scores:?}");
        }
    }

    #[test]
    fn no_windows_and_a_single_label_are_fine() {
        assert!(probabilities(&[], false).is_empty());
        for multiple in [false, true] {
            let score = probabilities(&[vec![label(0.9, &[])]], multiple)[0];
            assert!(score > 0.5 && score <= 1.0, "{score}");
        }
    }
}
