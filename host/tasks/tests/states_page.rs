//! `docs/task-states.md` shows the edges that the code has. `FORMWORK_BLESS=1` writes the page anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use formwork_tasks::{EDGES, State};
use std::{collections::BTreeMap, fmt::Write, path::Path};

const BEGIN: &str = "<!-- made from EDGES by host/tasks/tests/states_page.rs: begin -->\n";
const END: &str = "<!-- end -->";

fn picture_and_table() -> String {
    let mut text = String::from("```mermaid\nstateDiagram-v2\n    [*] --> available: pipeline\n");
    let mut arrows: BTreeMap<(State, State), Vec<&str>> = BTreeMap::new();
    for edge in EDGES {
        arrows
            .entry((edge.from, edge.to))
            .or_default()
            .push(edge.actor.as_str());
    }
    for ((from, to), actors) in arrows {
        writeln!(text, "    {from} --> {to}: {}", actors.join(", ")).unwrap();
    }
    for state in State::ALL.into_iter().filter(|state| *state == State::Completed) {
        writeln!(text, "    {state} --> [*]").unwrap();
    }
    text.push_str("```\n\n| from | to | who | guard |\n|---|---|---|---|\n");
    for edge in EDGES {
        writeln!(
            text,
            "| {} | {} | {} | {} |",
            edge.from,
            edge.to,
            edge.actor.as_str(),
            edge.guard
        )
        .unwrap();
    }
    text
}

#[test]
fn the_page_shows_the_edges_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/task-states.md");
    let page = std::fs::read_to_string(&file).expect("the page is there");
    let (before, rest) = page
        .split_once(BEGIN)
        .expect("the page has the mark where the picture begins");
    let (shown, after) = rest
        .split_once(END)
        .expect("the page has the mark where the table ends");
    let wanted = picture_and_table();
    if std::env::var_os("FORMWORK_BLESS").is_some() {
        std::fs::write(&file, format!("{before}{BEGIN}{wanted}{END}{after}")).expect("the page is written");
        return;
    }
    assert_eq!(
        shown, wanted,
        "run the test with FORMWORK_BLESS=1 to write the page anew"
    );
}

#[test]
fn every_state_can_be_entered_and_only_completed_cannot_be_left() {
    for state in State::ALL {
        let entered = state == State::Available || EDGES.iter().any(|edge| edge.to == state);
        assert!(entered, "{state}");
        let left = EDGES.iter().any(|edge| edge.from == state);
        assert_eq!(left, state != State::Completed, "{state}");
    }
}
