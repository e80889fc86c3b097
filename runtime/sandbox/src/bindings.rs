//! Generated from `guest-sdk/wit`: the exports the host calls and the traits behind the imports it offers.

#![allow(unsafe_code, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../guest-sdk/wit",
    world: "guest",
    exports: { default: async },
    // A handle that is not the guest's, or one too many, is a trap; everything else is an error the guest gets.
    imports: { "wasi:keyvalue/atomics": trappable },
    ownership: Borrowing { duplicate_if_necessary: true },
    with: {
        "wasi:keyvalue/store.bucket": super::resources::Bucket,
        "wasi:keyvalue/atomics.cas": super::resources::Cas,
    },
});
