//! The host side of the plugin contract: what `bindgen!` makes of `wit/`.
//!
//! A crate of its own because the derived code dominates compile time. Types and imports are generated once
//! ([`types`], [`host`]) and shared by the four worlds, so the engine converts each of them in one place. Nothing is
//! hand-written here.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated code; the contract's documentation is in wit/"
)]
#![allow(clippy::all, clippy::allow_attributes_without_reason, reason = "generated code")]

mod base {
    wasmtime::component::bindgen!({
        inline: "
            package formwork:host;
            world base {
                include formwork:plugin/host-imports@1.0.0;
                import formwork:plugin/types@1.0.0;
                import formwork:plugin/sinks@1.0.0;
            }
        ",
        path: "../../wit/1.0.0",
        world: "formwork:host/base",
        imports: {
            "formwork:plugin/embeddings@1.0.0.embed": async | trappable,
            "formwork:plugin/generation@1.0.0.start": async | trappable,
            "formwork:plugin/generation@1.0.0.[method]completion.next": async | trappable,
            "formwork:plugin/tensors@1.0.0.run": async | trappable,
            default: trappable,
        },
        require_store_data_send: true,
    });
}

/// Version 1 of the contract.
pub mod v1 {
    pub use crate::base::formwork::plugin::types;

    /// The imports: one module an interface, each with its `Host` trait.
    pub mod host {
        pub use crate::base::formwork::plugin::{embeddings, generation, host_types, log, progress, sinks, tensors};
    }

    macro_rules! world {
        ($module:ident, $world:literal $(, $interface:literal => $path:path)?) => {
            pub mod $module {
                wasmtime::component::bindgen!({
                    path: "../../wit/1.0.0",
                    world: $world,
                    with: {
                        "formwork:plugin/types@1.0.0": crate::v1::types,
                        "formwork:plugin/host-types@1.0.0": crate::v1::host::host_types,
                        "formwork:plugin/log@1.0.0": crate::v1::host::log,
                        "formwork:plugin/progress@1.0.0": crate::v1::host::progress,
                        "formwork:plugin/embeddings@1.0.0": crate::v1::host::embeddings,
                        "formwork:plugin/generation@1.0.0": crate::v1::host::generation,
                        "formwork:plugin/tensors@1.0.0": crate::v1::host::tensors,
                        $($interface: $path,)?
                    },
                    exports: { default: async },
                    require_store_data_send: true,
                });
            }
        };
    }

    world!(validator, "formwork:plugin/validator");
    world!(classifier, "formwork:plugin/classifier");
    world!(extractor, "formwork:plugin/extractor");
    world!(exporter, "formwork:plugin/exporter", "formwork:plugin/sinks@1.0.0" => crate::v1::host::sinks);
}
