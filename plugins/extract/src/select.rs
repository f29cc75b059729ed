//! Decides which candidate becomes which field.
//!
//! **Problem.** A text holds three dates, and two of the form's entities want one. **Promise.** A place is given to one entity
//! of a type only; the words near it decide first, confidence and order in the text after them; a choice among equals costs
//! confidence. **Cost.** Sorting all pairs. **Rejected.** The first candidate of the type for every entity.

use std::collections::BTreeMap;

use crate::cues::Cues;
use crate::limits;
use crate::rules::Found;
use crate::source::Source;

/// A candidate's weight against another's of the same entity: so much does the strongest cue add.
const CUE_WEIGHT: f32 = 0.4;
/// A cue from here on counts as said.
const SAID: f32 = 0.35;
/// What a said cue adds to the confidence of a weak candidate, and to a strong one.
const CUE_LIFT: (f32, f32) = (0.2, 0.03);
/// Factor of the confidence when another value was as good.
const AMBIGUOUS: f32 = 0.75;
/// Candidates whose weights differ by less are as good as each other.
const AS_GOOD: f32 = 0.1;
const MAX_CONFIDENCE: f32 = 0.98;

/// A wanted entity, as far as choosing goes.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) cues: &'a Cues,
    /// Entities of the same group want the same type of value and must share.
    pub(crate) group: usize,
    pub(crate) multiple: bool,
    /// A plain number without a cue, beside others, is noise.
    pub(crate) needs_cue: bool,
    /// By source.
    pub(crate) candidates: Vec<(usize, Found)>,
}

/// A chosen value: where it stands (equal contents), in which source each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) found: Found,
    pub(crate) confidence: f32,
    pub(crate) places: Vec<(usize, std::ops::Range<usize>)>,
}

/// For each entity what was chosen, in the order of the text.
pub(crate) fn choose(sources: &[Source], wanted: &[Wanted<'_>]) -> Vec<Vec<Chosen>> {
    let mut weighed = Vec::new();
    for (entity, want) in wanted.iter().enumerate() {
        for (index, (source, found)) in want.candidates.iter().enumerate() {
            let cue = want.cues.strength(&sources[*source].text, &found.range);
            weighed.push(Weighed {
                entity,
                index,
                cue,
                weight: found.confidence + CUE_WEIGHT * cue,
            });
        }
    }
    // A said cue of any strength goes before a bare candidate, so that the entity that is named gets its value.
    weighed.sort_by(|a, b| {
        b.weight
            .total_cmp(&a.weight)
            .then(a.entity.cmp(&b.entity))
            .then(a.index.cmp(&b.index))
    });
    let mut chosen: BTreeMap<usize, Vec<Weighed>> = BTreeMap::new();
    let mut taken: Vec<(usize, usize, std::ops::Range<usize>)> = Vec::new();
    for candidate in &weighed {
        let want = &wanted[candidate.entity];
        let (source, found) = &want.candidates[candidate.index];
        let mine = chosen.entry(candidate.entity).or_default();
        let full = if want.multiple {
            mine.len() >= limits::MAX_OCCURRENCES
        } else {
            !mine.is_empty()
        };
        let used = taken.iter().any(|(group, other, range)| {
            *group == want.group && other == source && crate::source::overlap(range, &found.range)
        });
        if !full && !used {
            mine.push(*candidate);
            taken.push((want.group, *source, found.range.clone()));
        }
    }
    (0..wanted.len())
        .map(|entity| {
            let mine = chosen.remove(&entity).unwrap_or_default();
            let mut answers: Vec<Chosen> = mine
                .iter()
                .map(|best| finish(sources, wanted, *best, &weighed, &taken))
                .collect();
            answers.sort_by_key(|answer| answer.places.first().map(|(source, range)| (*source, range.start)));
            answers
        })
        .collect()
}

#[derive(Debug, Clone, Copy)]
struct Weighed {
    entity: usize,
    index: usize,
    cue: f32,
    weight: f32,
}

fn finish(
    sources: &[Source],
    wanted: &[Wanted<'_>],
    best: Weighed,
    all: &[Weighed],
    taken: &[(usize, usize, std::ops::Range<usize>)],
) -> Chosen {
    let want = &wanted[best.entity];
    let (source, found) = &want.candidates[best.index];
    let rivals = all
        .iter()
        .filter(|other| other.entity == best.entity)
        .filter(|other| best.weight - other.weight < AS_GOOD)
        .map(|other| &want.candidates[other.index])
        .filter(|(_, other)| other.value != found.value)
        .filter(|(at, other)| {
            !taken
                .iter()
                .any(|(group, s, range)| *group == want.group && s == at && *range == other.range)
        })
        .count();
    let said = best.cue >= SAID;
    let mut confidence = found.confidence;
    if said {
        confidence += if confidence < 0.7 { CUE_LIFT.0 } else { CUE_LIFT.1 };
    }
    if !want.multiple && rivals > 0 {
        confidence *= AMBIGUOUS;
        if want.needs_cue && !said {
            confidence *= AMBIGUOUS;
        }
    }
    let content = &sources[*source].text[found.range.clone()];
    let mut places = vec![(*source, found.range.clone())];
    if !want.multiple {
        // The same words elsewhere are the same value.
        places.extend(
            want.candidates
                .iter()
                .filter(|(at, other)| (*at, &other.range) != (*source, &found.range) && other.value == found.value)
                .filter(|(at, other)| &sources[*at].text[other.range.clone()] == content)
                .map(|(at, other)| (*at, other.range.clone())),
        );
        places.sort_by_key(|(at, range)| (*at, range.start));
    }
    Chosen {
        found: found.clone(),
        confidence: confidence.min(MAX_CONFIDENCE),
        places,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Kind, read_for_test};

    fn dates(text: &str, names: &[(&str, bool)]) -> Vec<Vec<(String, f32)>> {
        let sources = [Source {
            pointer: "/m".into(),
            text: text.into(),
        }];
        let cues: Vec<Cues> = names.iter().map(|(name, _)| Cues::new(name, "")).collect();
        let found = read_for_test(text, None, None).of(Kind::Date).to_vec();
        let wanted: Vec<Wanted<'_>> = names
            .iter()
            .zip(&cues)
            .map(|((_, multiple), cues)| Wanted {
                cues,
                group: 0,
                multiple: *multiple,
                needs_cue: false,
                candidates: found.iter().map(|found| (0, found.clone())).collect(),
            })
            .collect();
        choose(&sources, &wanted)
            .into_iter()
            .map(|chosen| {
                chosen
                    .into_iter()
                    .map(|one| (one.found.value.as_str().unwrap().to_owned(), one.confidence))
                    .collect()
            })
            .collect()
    }

    #[test]
    fn cue_words_give_each_entity_its_own() {
        let text = "I bought it on 1 May 2026, and the accident happened on 9 June 2026.";
        let chosen = dates(text, &[("incident_date", false), ("purchase_date", false)]);
        assert_eq!(
            (chosen[0][0].0.as_str(), chosen[1][0].0.as_str()),
            ("2026-06-09", "2026-05-01")
        );
        let chosen = dates(
            "I bought it on 1 May 2026",
            &[("incident_date", false), ("purchase_date", false)],
        );
        assert!(chosen[0].is_empty());
        assert_eq!(chosen[1][0].0, "2026-05-01");
    }

    #[test]
    fn a_choice_among_equals_costs_confidence() {
        let one = dates("2026-05-01", &[("day", false)])[0][0].1;
        let two = dates("2026-05-01 2026-05-02", &[("day", false)])[0][0].1;
        let same = dates("2026-05-01 2026-05-01", &[("day", false)])[0][0].1;
        assert!(two < one && same == one);
    }

    #[test]
    fn multiple_answers_come_in_the_texts_order() {
        let chosen = dates("1 May 2026, 2026-04-01, 3 May 2026", &[("day", true)]);
        let days: Vec<&str> = chosen[0].iter().map(|(day, _)| day.as_str()).collect();
        assert_eq!(days, ["2026-05-01", "2026-04-01", "2026-05-03"]);
    }
}
