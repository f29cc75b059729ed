//! What `wit-bindgen` makes of the contract: shared types and imports once, the exports of the chosen kind.

mod imports {
    wit_bindgen::generate!({
        inline: "
            package formwork:sdk;
            world imports {
                include formwork:plugin/host-imports@1.0.0;
                import formwork:plugin/types@1.0.0;
                import formwork:plugin/sinks@1.0.0;
            }
        ",
        path: "../../wit/1.0.0",
        world: "formwork:sdk/imports",
        generate_all,
    });
}

pub use imports::formwork::plugin::types;

/// The host's functions as the contract names them.
pub mod host {
    pub use super::imports::formwork::plugin::{embeddings, generation, host_types, log, progress, sinks, tensors};
}

macro_rules! kind {
    ($feature:literal, $module:ident, $world:literal $(, $interface:literal: $path:path)*) => {
        #[cfg(feature = $feature)]
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit/1.0.0",
                world: $world,
                pub_export_macro: true,
                export_macro_name: "export",
                with: {
                    "formwork:plugin/types@1.0.0": crate::bindings::types,
                    "formwork:plugin/host-types@1.0.0": crate::bindings::host::host_types,
                    "formwork:plugin/log@1.0.0": crate::bindings::host::log,
                    "formwork:plugin/progress@1.0.0": crate::bindings::host::progress,
                    "formwork:plugin/embeddings@1.0.0": crate::bindings::host::embeddings,
                    "formwork:plugin/generation@1.0.0": crate::bindings::host::generation,
                    "formwork:plugin/tensors@1.0.0": crate::bindings::host::tensors,
                    $($interface: $path,)*
                },
            });
        }
    };
}

kind!("validator", validator, "formwork:plugin/validator");
kind!("classifier", classifier, "formwork:plugin/classifier");
kind!("extractor", extractor, "formwork:plugin/extractor");
kind!("exporter", exporter, "formwork:plugin/exporter", "formwork:plugin/sinks@1.0.0": crate::bindings::host::sinks);
