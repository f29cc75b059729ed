//! Sockets that are imported and never there.
//!
//! **Problem.** Every component made from Python imports WASI's sockets, because CPython's C library holds them, whether
//! the plugin opens one or not. **Promise.** Such a plugin installs, and no code of the host's sockets can be reached: a
//! call of theirs traps with a message that says so. **Cost.** A name that stays in the component's list of imports.
//! **Rejected.** WASI's own sockets with every address denied: a guest could still make the host open a thousand of them
//! a call. A component without the imports: its C library is linked in when the tool was built, not here.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType};

/// The package whose imports are accepted and never satisfied.
pub(crate) const PACKAGE: &str = "wasi:sockets/";

/// Why.
pub(crate) const REASON: &str = "a plugin has no network";

/// Stands for every resource of the package. No value of it is ever made.
enum Socket {}

/// Defines what `component` imports of `package` as functions that trap and say why.
pub(crate) fn define_traps<T: 'static>(
    linker: &mut Linker<T>,
    engine: &wasmtime::Engine,
    component: &Component,
    package: &str,
    why: &'static str,
) -> wasmtime::Result<()> {
    // wasmtime's own definitions stand in the linker already.
    linker.allow_shadowing(true);
    // A resource that an earlier import defined (a stream, a pollable) is only named again: it keeps its definition.
    let mut known = Vec::new();
    for (interface, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            continue;
        };
        for (name, item) in instance.exports(engine) {
            let first = matches!(item.ty, ComponentItem::Resource(resource) if !known.contains(&resource));
            if let ComponentItem::Resource(resource) = item.ty {
                known.push(resource);
            }
            if !interface.starts_with(package) {
                continue;
            }
            let mut linked = linker.instance(interface)?;
            match item.ty {
                ComponentItem::Resource(_) if first => {
                    linked.resource(name, ResourceType::host::<Socket>(), |_, _| Ok(()))?;
                }
                ComponentItem::ComponentFunc(_) => {
                    let message = format!("{interface} was called: {why}");
                    linked.func_new(name, move |_, _, _, _| Err(wasmtime::Error::msg(message.clone())))?;
                }
                _ => {}
            }
        }
    }
    linker.allow_shadowing(false);
    Ok(())
}
