//! Runs a component up to where its work begins, and reads out what it then holds.

use formwork_bindings::v1::types as wit;
use wasmtime::component::{Component, Instance, InstancePre, Linker, WasmList};
use wasmtime::{Module, Store};

use super::split::{STATE_IMPORT, StateImport};
use super::state_module::{MemoryValue, PAGE, Reader, Values, build, readers};
use super::{Split, Unsupported};
use crate::guest::World;
use crate::no_network;
use crate::state::State;
use crate::{CallError, Kind, Setup, convert};

/// A compiled component and what it takes to instantiate it from an image.
pub(crate) struct Code {
    engine: wasmtime::Engine,
    component: Component,
    linker: Linker<State>,
    kind: Kind,
    /// What was split from it; none: its state is its own.
    split: Option<SplitParts>,
}

struct SplitParts {
    state: StateImport,
    inits: Vec<String>,
}

/// A component ready to instantiate: each instance begins in the same state.
pub(crate) struct Image {
    /// Typed by the plugin's kind.
    pub(crate) world: World,
    instance: InstancePre<State>,
    state: Option<Module>,
    /// Bytes of the state module: about what the image holds in memory.
    pub(crate) bytes: usize,
}

/// Which state to take.
#[derive(Clone, Copy)]
pub(crate) enum Until<'a> {
    /// After what instantiation does: data copied, start functions run.
    Started,
    /// After `prepare` of this setup.
    Prepared(&'a Setup),
}

impl Code {
    /// Code whose state is its own: it has the plain path only.
    pub(crate) fn whole(component: Component, linker: Linker<State>, kind: Kind) -> Self {
        Self {
            engine: component.engine().clone(),
            component,
            linker,
            kind,
            split: None,
        }
    }

    /// Code whose state was split from it; `component` is what was compiled of [`Split::component`].
    pub(crate) fn split(component: Component, linker: Linker<State>, kind: Kind, split: Split) -> Self {
        Self {
            split: Some(SplitParts {
                state: split.state,
                inits: split.inits,
            }),
            ..Self::whole(component, linker, kind)
        }
    }

    /// Whether there are images other than the pristine one.
    pub(crate) fn is_split(&self) -> bool {
        self.split.is_some()
    }

    /// What reading every memory out needs on top of the memories, bytes.
    pub(crate) fn reading_bytes(&self) -> u64 {
        let memories = self.split.as_ref().map_or(0, |split| split.state.shape.memories.len());
        memories as u64 * PAGE as u64
    }

    /// The image in which nothing has run yet.
    pub(crate) fn pristine(&self) -> wasmtime::Result<Image> {
        match &self.split {
            Some(split) => self.image(&Values::pristine(&split.state.shape)),
            None => self.image_with(None, 0),
        }
    }

    /// The image of these values.
    pub(crate) fn image(&self, values: &Values) -> wasmtime::Result<Image> {
        let Some(split) = &self.split else {
            return self.image_with(None, 0);
        };
        let wasm = build(&split.state.shape, values).map_err(wasmtime::Error::new)?;
        let bytes = wasm.len();
        self.image_with(Some(Module::new(&self.engine, wasm)?), bytes)
    }

    fn image_with(&self, state: Option<Module>, bytes: usize) -> wasmtime::Result<Image> {
        let mut linker = self.linker.clone();
        if let Some(state) = &state {
            linker.root().module(STATE_IMPORT, state)?;
        }
        let instance = linker.instantiate_pre(&self.component)?;
        Ok(Image {
            world: World::new(self.kind, instance.clone())?,
            instance,
            state,
            bytes,
        })
    }

    /// An image for a store that holds nothing but what WASI links: what the benches measure a call against.
    pub(crate) fn bare<T: wasmtime_wasi::WasiView>(&self, image: &Image) -> wasmtime::Result<InstancePre<T>> {
        let mut linker = Linker::new(&self.engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        if let Some(state) = &image.state {
            linker.root().module(STATE_IMPORT, state)?;
        }
        let absent = [
            (no_network::PACKAGE, no_network::REASON),
            ("formwork:plugin/", "the bare store has no host functions"),
        ];
        for (package, why) in absent {
            no_network::define_traps(&mut linker, &self.engine, &self.component, package, why)?;
        }
        linker.instantiate_pre(&self.component)
    }

    async fn read(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Values> {
        let mut values = Values::default();
        let Some(SplitParts { state, .. }) = &self.split else {
            return Ok(values);
        };
        for (reader, export) in readers(&state.shape).iter().zip(&state.readers) {
            match reader {
                Reader::Memory { .. } => {
                    let read = instance.get_typed_func::<(), (WasmList<u8>,)>(&mut *store, export)?;
                    let (bytes,) = read.call_async(&mut *store, ()).await?;
                    values.memories.push(MemoryValue::of(bytes.as_le_slice(&*store)));
                }
                Reader::Global { .. } => {
                    let read = instance.get_typed_func::<(), (u64,)>(&mut *store, export)?;
                    values.globals.push(read.call_async(&mut *store, ()).await?.0);
                }
            }
        }
        Ok(values)
    }
}

/// The values of a component's state, begun from `image` and run `until`.
pub(crate) async fn take(
    code: &Code,
    image: &Image,
    until: Until<'_>,
    mut store: Store<State>,
) -> wasmtime::Result<Result<Values, CallError>> {
    let instance = image.instance.instantiate_async(&mut store).await?;
    match until {
        Until::Started => {
            for init in code.split.iter().flat_map(|split| &split.inits) {
                let init = instance.get_typed_func::<(), ()>(&mut store, init)?;
                init.call_async(&mut store, ()).await?;
            }
        }
        Until::Prepared(setup) => {
            let prepare =
                instance.get_typed_func::<(&wit::Form, &str), (Result<(), wit::Error>,)>(&mut store, "prepare")?;
            let form = convert::form(setup.form());
            let (answer,) = prepare.call_async(&mut store, (&form, setup.settings())).await?;
            if let Err(error) = answer {
                return Ok(Err(convert::plugin_error(error)));
            }
        }
    }
    // A handle is a number in the guest's memory and an object in the host's table: only the first would be in the image.
    if !store.data().table.is_empty() {
        return Err(wasmtime::Error::new(Unsupported::new(
            "it holds a handle of the host, for example of its standard output",
        )));
    }
    Ok(Ok(code.read(&mut store, &instance).await?))
}
