//! What a component may import: the contract's free interfaces, WASI that gives nothing away, and its grants.

use std::collections::BTreeSet;

use formwork_bindings::v1::host::{embeddings, generation, host_types, log, progress, sinks, tensors};
use formwork_bindings::v1::types;
use formwork_manifest::Grant;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::no_network;
use crate::state::State;

impl types::Host for State {}

/// WASI packages every plugin may import. They reach clocks, randomness and the bounded standard streams; there are no
/// arguments, no environment and no preopened folder behind the others, and sockets trap. HTTP is not among them.
const WASI_PACKAGES: [&str; 6] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    no_network::PACKAGE,
];

/// Interfaces of the contract that need no grant.
const FREE_INTERFACES: [&str; 4] = ["types", "host-types", "log", "progress"];

/// What an import needs.
pub(crate) enum Need {
    Nothing,
    Grant(Grant),
    Forbidden,
}

/// What importing the interface `name` needs.
pub(crate) fn need(name: &str) -> Need {
    if WASI_PACKAGES.iter().any(|package| name.starts_with(package)) {
        return Need::Nothing;
    }
    let Some(interface) = name
        .strip_prefix("formwork:plugin/")
        .and_then(|rest| rest.split('@').next())
    else {
        return Need::Forbidden;
    };
    match interface {
        _ if FREE_INTERFACES.contains(&interface) => Need::Nothing,
        "embeddings" => Need::Grant(Grant::Embeddings),
        "generation" => Need::Grant(Grant::Generation),
        "tensors" => Need::Grant(Grant::Tensors),
        "sinks" => Need::Grant(Grant::Sink),
        _ => Need::Forbidden,
    }
}

/// A linker for `component` that has what the grants allow and nothing else.
pub(crate) fn linker(
    engine: &wasmtime::Engine,
    component: &Component,
    grants: &BTreeSet<Grant>,
) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    host_types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    log::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    progress::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    for grant in grants {
        match grant {
            Grant::Embeddings => embeddings::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?,
            Grant::Generation => generation::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?,
            Grant::Tensors => tensors::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?,
            Grant::Sink => sinks::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?,
        }
    }
    no_network::define_traps(&mut linker, engine, component, no_network::PACKAGE, no_network::REASON)?;
    Ok(linker)
}
