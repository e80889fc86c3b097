//! The `#[handler]` attribute of `sluicebox-sdk`.
//!
//! It leaves the function as it is and, on Wasm, exports it as the component's `handle`. Natively the function is just a
//! function, which `sluicebox_sdk::testing` runs.

use proc_macro::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, ReturnType, parse_macro_input};

/// Makes a function the handler of this crate.
///
/// ```text
/// #[sluicebox_sdk::handler]
/// fn order(event: Json<NewOrder>, cx: &mut Context) -> Result<(), Failure> { … }
/// ```
///
/// The first argument is anything that is `FromMessage`: `Json<T>`, `Text`, `Bytes` or `Message`. The error is anything
/// that turns into a `Failure`. A crate has one handler.
#[proc_macro_attribute]
pub fn handler(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    let checked = check(&function).and_then(|()| match proc_macro2::TokenStream::from(attribute) {
        empty if empty.is_empty() => Ok(()),
        extra => Err(Error::new(extra.span(), "`#[handler]` takes no arguments")),
    });
    match checked {
        Ok(()) => expand(&function).into(),
        Err(error) => {
            let error = error.to_compile_error();
            quote!(#function #error).into()
        }
    }
}

fn check(function: &ItemFn) -> Result<(), Error> {
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        return Err(Error::new(token.span(), "a handler is not async: the host runs many at once"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), "a handler has no generic parameters"));
    }
    let arguments: Vec<&FnArg> = signature.inputs.iter().collect();
    match arguments[..] {
        [FnArg::Typed(_), FnArg::Typed(_)] => {}
        _ => {
            let wanted = "a handler takes two arguments: `(event: Json<T>, cx: &mut Context)`";
            return Err(Error::new(signature.span(), wanted));
        }
    }
    match signature.output {
        ReturnType::Type(..) => Ok(()),
        ReturnType::Default => Err(Error::new(signature.span(), "a handler returns `Result<(), Failure>`")),
    }
}

fn expand(function: &ItemFn) -> proc_macro2::TokenStream {
    let name = &function.sig.ident;
    // The span of the name, so that a wrong argument or return type is reported at the author's function.
    let call = quote_spanned!(name.span()=> ::sluicebox_sdk::component::handle(#name, message));
    quote! {
        #[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "exported on Wasm, run by tests elsewhere"))]
        #function

        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the exports of a component are generated")]
        const _: () = {
            use ::sluicebox_sdk::component::bindings;

            struct Component;

            impl bindings::exports::sluicebox::handler::handler::Guest for Component {
                fn handle(
                    message: bindings::sluicebox::handler::types::Message,
                ) -> ::core::result::Result<(), bindings::sluicebox::handler::types::Failure> {
                    #call
                }
            }

            bindings::export!(Component with_types_in ::sluicebox_sdk::component::bindings);
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(function: ItemFn, expected: &str) {
        let error = check(&function).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_cannot_be_a_handler_is_refused_in_words() {
        let good: ItemFn = syn::parse_quote!(
            fn order(event: Json<Order>, cx: &mut Context) -> Result<(), Failure> {}
        );
        check(&good).unwrap();
        refused(
            syn::parse_quote!(
                async fn order(event: Text, cx: &mut Context) -> Result<(), Failure> {}
            ),
            "not async",
        );
        refused(
            syn::parse_quote!(
                fn order<T>(event: T, cx: &mut Context) -> Result<(), Failure> {}
            ),
            "no generic",
        );
        refused(
            syn::parse_quote!(
                fn order(event: Text) -> Result<(), Failure> {}
            ),
            "takes two arguments",
        );
        refused(
            syn::parse_quote!(
                fn order(self, cx: &mut Context) -> Result<(), Failure> {}
            ),
            "takes two arguments",
        );
        refused(
            syn::parse_quote!(
                fn order(event: Text, cx: &mut Context) {}
            ),
            "returns `Result<(), Failure>`",
        );
    }
}
