//! Runs a component up to where its work begins, and reads out what it then holds.

use formwork_bindings::v1::types as wit;
use wasmtime::component::{Component, Instance, InstancePre, Linker, WasmList};
use wasmtime::{Module, Store};

use super::split::StateImport;
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
    states: Vec<StateImport>,
    inits: Vec<String>,
}

/// A component ready to instantiate: each instance begins in the same state.
pub(crate) struct Image {
    /// Typed by the plugin's kind.
    pub(crate) world: World,
    instance: InstancePre<State>,
    /// Its state modules, by the name they are imported under.
    modules: Vec<(String, Module)>,
    /// Bytes of the state modules: about what the image holds in memory.
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
            states: Vec::new(),
            inits: Vec::new(),
        }
    }

    /// Code whose state was split from it; `component` is what was compiled of [`Split::component`].
    pub(crate) fn split(component: Component, linker: Linker<State>, kind: Kind, split: Split) -> Self {
        Self {
            states: split.states,
            inits: split.inits,
            ..Self::whole(component, linker, kind)
        }
    }

    /// Whether there is an image other than the pristine one.
    pub(crate) fn is_split(&self) -> bool {
        !self.states.is_empty() || !self.inits.is_empty()
    }

    /// What reading every memory out needs on top of the memories, bytes.
    pub(crate) fn reading_bytes(&self) -> u64 {
        self.states
            .iter()
            .map(|state| state.shape.memories.len() as u64 * PAGE as u64)
            .sum()
    }

    /// The image in which nothing has run yet.
    pub(crate) fn pristine(&self) -> wasmtime::Result<Image> {
        let values: Vec<_> = self.states.iter().map(|state| Values::pristine(&state.shape)).collect();
        self.image(&values)
    }

    /// The image of these values, one a state module.
    pub(crate) fn image(&self, values: &[Values]) -> wasmtime::Result<Image> {
        let mut linker = self.linker.clone();
        let (mut bytes, mut modules) = (0, Vec::new());
        for (state, values) in self.states.iter().zip(values) {
            let wasm = build(&state.shape, values).map_err(wasmtime::Error::new)?;
            bytes += wasm.len();
            let module = Module::new(&self.engine, wasm)?;
            linker.root().module(&state.name, &module)?;
            modules.push((state.name.clone(), module));
        }
        let instance = linker.instantiate_pre(&self.component)?;
        Ok(Image {
            world: World::new(self.kind, instance.clone())?,
            instance,
            modules,
            bytes,
        })
    }

    /// An image for a store that holds nothing but what WASI links: what the benches measure a call against.
    pub(crate) fn bare<T: wasmtime_wasi::WasiView>(&self, image: &Image) -> wasmtime::Result<InstancePre<T>> {
        let mut linker = Linker::new(&self.engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        for (name, module) in &image.modules {
            linker.root().module(name, module)?;
        }
        for package in [no_network::PACKAGE, "formwork:plugin/"] {
            no_network::define_traps(&mut linker, &self.engine, &self.component, package)?;
        }
        linker.instantiate_pre(&self.component)
    }

    async fn read(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Vec<Values>> {
        let mut all = Vec::new();
        for state in &self.states {
            let mut values = Values::default();
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
            all.push(values);
        }
        Ok(all)
    }
}

/// The values of a component's state, begun from `image` and run `until`.
pub(crate) async fn take(
    code: &Code,
    image: &Image,
    until: Until<'_>,
    mut store: Store<State>,
) -> wasmtime::Result<Result<Vec<Values>, CallError>> {
    let instance = image.instance.instantiate_async(&mut store).await?;
    match until {
        Until::Started => {
            for init in &code.inits {
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
