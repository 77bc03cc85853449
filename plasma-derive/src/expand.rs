//! The impls. Nothing can go wrong here any more: what the compiler has to say later, it says at the
//! user's field or type.
//!
//! Names that are written here resolve where the user's type is, so every one is a path from the
//! root. Only what the compiler may have to complain about stands at the user's own tokens.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::{Expr, ExprLit, ExprUnary, Ident, Lit, Type, UnOp};

use crate::ast::{Field, Kind, Object, Variant, peel};
use crate::attr::Attrs;
use crate::repr::Primitive;

pub(crate) fn impls(object: &Object<'_>) -> TokenStream {
    let Items { impls, checks } = match &object.kind {
        Kind::Sized {
            fields,
            transparent,
        } => sized(object, fields, *transparent),
        Kind::Tailed { head, tail } => tailed(object, head, tail),
        Kind::Enum { repr, variants } => unit_enum(object, repr, variants),
    };
    quote! {
        #[allow(deprecated)]
        const _: () = {
            #impls
            #checks
        };
    }
}

/// What a type expands to.
struct Items {
    impls: TokenStream,
    /// Constants which do not evaluate, or do not compile, where the type is no object.
    checks: TokenStream,
}

/// Whether it is the name of a number's type, or of one that is like them.
fn is_number(name: &Ident) -> bool {
    let names = [
        "u8", "u16", "u32", "u64", "u128", "i8", "i16", "i32", "i64", "i128", "f32", "f64", "bool",
        "char",
    ];
    names.iter().any(|it| name == it)
}

/// The path to `plasma-typed`.
pub(crate) fn krate(attrs: &Attrs) -> TokenStream {
    match &attrs.krate {
        Some(path) => generated(path.to_token_stream()),
        None => quote!(::plasma_typed),
    }
}

/// Tokens of a path that the user gave, as tokens of this macro: lints are not about them.
fn generated(path: TokenStream) -> TokenStream {
    let respanned = path.into_iter().map(|mut token| {
        token.set_span(token.span().resolved_at(Span::mixed_site()));
        token
    });
    respanned.collect()
}

/// All of these tokens as if they stood there: what the compiler says of them, it says there.
fn standing_at(span: Span, tokens: TokenStream) -> TokenStream {
    let moved = tokens.into_iter().map(|token| {
        let mut token = match token {
            TokenTree::Group(group) => {
                let inner = standing_at(span, group.stream());
                TokenTree::Group(Group::new(group.delimiter(), inner))
            }
            token => token,
        };
        token.set_span(span);
        token
    });
    moved.collect()
}

/// These tokens for use outside of an impl, where `Self` has no meaning.
fn without_self(tokens: TokenStream, ident: &Ident) -> TokenStream {
    let renamed = tokens.into_iter().map(|token| match token {
        TokenTree::Group(group) => {
            let mut renamed = Group::new(group.delimiter(), without_self(group.stream(), ident));
            renamed.set_span(group.span());
            TokenTree::Group(renamed)
        }
        TokenTree::Ident(it) if it == "Self" => TokenTree::Ident(ident.clone()),
        token => token,
    });
    renamed.collect()
}

/// What all impls of a type share.
struct Impls<'a> {
    object: &'a Object<'a>,
    krate: TokenStream,
    private: TokenStream,
    /// The type's own bounds, and those that its fields bring.
    bounds: TokenStream,
    /// The last field, if its type may have no fixed size for all that is written.
    unknown: Option<&'a Field<'a>>,
}

/// What differs between kinds of types in `impl PlasmaObject`.
struct Parts<'a> {
    fields: &'a [&'a Field<'a>],
    schema: TokenStream,
    all_bits_valid: TokenStream,
    check: TokenStream,
    from_parts: TokenStream,
    tail_len: TokenStream,
}

impl<'a> Impls<'a> {
    fn new(object: &'a Object<'a>, fields: impl Iterator<Item = &'a Field<'a>>) -> Self {
        let krate = krate(object.attrs);
        let generics = object.generics;
        let own = generics.where_clause.iter().flat_map(|it| &it.predicates);
        let parameters: Vec<&Ident> = generics.type_params().map(|it| &it.ident).collect();
        let generic_fields = fields
            .map(Field::ty)
            .filter(|ty| mentions(ty.to_token_stream(), &parameters));
        let bounds = quote! {
            #(#own,)*
            #(#parameters: 'static,)*
            #(#generic_fields: #krate::PlasmaObject,)*
        };
        Self {
            object,
            private: quote!(#krate::__private),
            krate,
            bounds,
            unknown: None,
        }
    }

    /// The same for a struct whose last field is this one. Where that is not of a fixed size after
    /// all, the impls say so to who relies on them, and to nobody else.
    fn with_last(mut self, last: Option<&'a Field<'a>>) -> Self {
        let may_be_unsized = |field: &&Field<'_>| match peel(field.ty()) {
            Type::Path(path) => !path.path.get_ident().is_some_and(is_number),
            _ => false,
        };
        self.unknown = last.filter(may_be_unsized).filter(|_| !self.is_generic());
        let Self {
            bounds, private, ..
        } = &self;
        if let Some(ty) = self.unknown.map(Field::ty) {
            self.bounds = quote! {
                #bounds
                for<'__plasma> #ty: #private::SizedField<'__plasma>,
                for<'__plasma> Self: #private::SizedField<'__plasma>,
            };
        }
        self
    }

    fn is_generic(&self) -> bool {
        !self.object.generics.params.is_empty()
    }

    /// `impl what for the type where more { body }`.
    fn implement(&self, what: &TokenStream, more: &TokenStream, body: &TokenStream) -> TokenStream {
        let ident = self.object.ident;
        let (impl_generics, type_generics, _) = self.object.generics.split_for_impl();
        let own = &self.bounds;
        quote! {
            impl #impl_generics #what for #ident #type_generics where #own #more { #body }
        }
    }

    fn plasma_object(&self, parts: &Parts<'_>) -> TokenStream {
        let Self { krate, private, .. } = self;
        let Parts {
            fields,
            schema,
            all_bits_valid,
            check,
            from_parts,
            tail_len,
        } = parts;
        // An attribute that comes later may have changed them.
        let field_types = fields.iter().map(|field| {
            let member = &field.member;
            let ty = field.ty();
            let is = Ident::new("is", field.span());
            quote! {
                #private::type_at(&raw const __plasma_value.#member).#is::<#ty>();
            }
        });
        let body = quote! {
            const SCHEMA: &'static #krate::Schema = #schema;
            const ALL_BITS_VALID: ::core::primitive::bool = #all_bits_valid;
            #[inline]
            fn check(
                __plasma_bytes: &[::core::primitive::u8],
            ) -> ::core::result::Result<(), #private::InvalidBytes> {
                #check
            }
            #[inline]
            fn from_parts(
                __plasma_start: *const ::core::primitive::u8,
                __plasma_len: ::core::primitive::usize,
            ) -> *const Self {
                #from_parts
            }
            #[inline]
            fn tail_len(__plasma_value: &Self) -> ::core::primitive::usize {
                #(#field_types)*
                #tail_len
            }
        };
        let item = self.implement(&quote!(#krate::PlasmaObject), &quote!(), &body);
        quote!(#[automatically_derived] unsafe #item)
    }

    /// Not looked at before somebody relies on it: a type that has a field without it is no mistake.
    fn zero_valid(&self, fields: impl Iterator<Item = &'a Field<'a>>) -> TokenStream {
        let Self { krate, private, .. } = self;
        let fields = fields.map(Field::ty);
        let more = quote!(#(for<'__plasma> #fields: #private::ZeroField<'__plasma>,)*);
        let item = self.implement(&quote!(#krate::ZeroValid), &more, &quote!());
        quote!(#[automatically_derived] unsafe #item)
    }

    /// bytemuck's traits; `no_uninit` if it is known that there is no padding, with the bounds under
    /// which it is.
    fn bytemuck(&self, no_uninit: Option<&TokenStream>) -> TokenStream {
        let private = &self.private;
        let zero = quote!(for<'__plasma> Self: #private::ZeroField<'__plasma>,);
        let zeroable = self.implement(&quote!(#private::bytemuck::Zeroable), &zero, &quote!());
        let copy = quote!(for<'__plasma> Self: #private::CopyObject<'__plasma>,);
        let checked = self.implement(
            &quote!(#private::bytemuck::CheckedBitPattern),
            &copy,
            &quote! {
                type Bits = #private::Bits<Self>;
                #[inline]
                fn is_valid_bit_pattern(__plasma_bits: &Self::Bits) -> ::core::primitive::bool {
                    __plasma_bits.are_valid()
                }
            },
        );
        let no_uninit = no_uninit.map(|bounds| {
            let more = quote!(#copy #bounds);
            let item = self.implement(&quote!(#private::bytemuck::NoUninit), &more, &quote!());
            quote!(#[automatically_derived] unsafe #item)
        });
        quote! {
            #[automatically_derived]
            unsafe #zeroable
            #[automatically_derived]
            unsafe #checked
            #no_uninit
        }
    }

    /// That the type is `Copy`, if that is the same whatever its parameters are.
    fn copy_check(&self) -> Option<TokenStream> {
        let private = &self.private;
        let ident = self.object.ident;
        let sized = match self.unknown {
            Some(_) => quote!({ __PlasmaSized::IS_SIZED }),
            None => quote!(true),
        };
        let check = quote!(const _: () = <#ident as #private::IsCopy<#sized>>::YES;);
        (!self.is_generic()).then_some(check)
    }

    /// That the last field's size is fixed, as it looks; and `__PlasmaSized`, which has what other
    /// checks are about: nothing if it is not.
    fn size_check(&self, gaps: &TokenStream) -> Option<TokenStream> {
        let Self { krate, private, .. } = self;
        let ident = self.object.ident;
        let last = without_self(self.unknown?.ty().to_token_stream(), ident);
        Some(quote! {
            const _: () = <#last as #private::IsSized>::YES;
            #[allow(unused_imports)]
            use #private::NotSized as _;
            struct __PlasmaSized;
            impl __PlasmaSized
            where
                for<'__plasma> #last: #private::SizedField<'__plasma>,
                for<'__plasma> #ident: #private::SizedField<'__plasma>,
            {
                const IS_SIZED: ::core::primitive::bool = true;
                const SCHEMA: &'static #krate::Schema = <#ident as #krate::PlasmaObject>::SCHEMA;
                const GAPS: #private::Gaps = #gaps;
            }
        })
    }

    /// A schema, and checks that have to pass. Those of a type without parameters come with its
    /// definition, each on its own, so that all that fail are reported; those of a generic type
    /// when its schema is first asked for.
    fn checked_schema(&self, schema: &TokenStream, gaps: &[Gap]) -> (TokenStream, TokenStream) {
        let Self { krate, private, .. } = self;
        let ident = self.object.ident;
        let (_, type_generics, _) = self.object.generics.split_for_impl();
        let drop_check = |schema: TokenStream| {
            let check = quote!(#private::assert_no_drop::<#ident #type_generics>(#schema));
            standing_at(ident.span(), check)
        };
        if self.is_generic() {
            let drop_check = drop_check(quote!(__plasma_schema));
            let gap_checks = gaps.iter().map(|Gap { end, next, span }| {
                let assert = standing_at(*span, quote!(#private::assert_no_padding));
                quote_spanned!(*span=> #assert(#end, #next))
            });
            let schema = quote! {{
                let __plasma_schema: &'static #krate::Schema = const { #schema };
                #drop_check;
                #(#gap_checks;)*
                __plasma_schema
            }};
            return (schema, TokenStream::new());
        }
        let gap_checks = gaps.iter().enumerate().map(|(index, Gap { span, .. })| {
            let assert = standing_at(*span, quote!(#private::assert_no_padding_in));
            quote_spanned!(*span=> #assert(__PLASMA_GAPS, #index))
        });
        let ends = gaps.iter().map(|gap| &gap.end);
        let nexts = gaps.iter().map(|gap| &gap.next);
        let gaps = without_self(quote!(&[#((#ends, #nexts),)*]), ident);
        let size_check = self.size_check(&gaps);
        let (gaps, schema_there) = match self.unknown {
            Some(_) => (quote!(__PlasmaSized::GAPS), quote!(__PlasmaSized::SCHEMA)),
            None => (gaps, quote!(<#ident as #krate::PlasmaObject>::SCHEMA)),
        };
        let drop_check = drop_check(schema_there);
        let checks = quote! {
            #size_check
            const _: () = #drop_check;
            const __PLASMA_GAPS: #private::Gaps = #gaps;
            #(const _: () = #gap_checks;)*
        };
        (schema.clone(), checks)
    }

    /// That fields whose order is not known are all that there is.
    fn sum(&self, fields: &[Field<'_>]) -> Gap {
        let types = fields.iter().map(Field::ty);
        Gap {
            end: quote!(0 #(+ ::core::mem::size_of::<#types>())*),
            next: quote!(::core::mem::size_of::<Self>()),
            span: self.object.ident.span(),
        }
    }
}

/// Where padding may be: between the end of a field and what comes next.
struct Gap {
    end: TokenStream,
    next: TokenStream,
    /// Where it is reported.
    span: Span,
}

/// What lies behind each of these fields, the last before `end`.
fn gaps(fields: &[Field<'_>], end: TokenStream) -> Vec<Gap> {
    let starts = fields.iter().skip(1).map(offset);
    let nexts = starts.chain([end]);
    let gap = |(field, next): (&Field<'_>, TokenStream)| Gap {
        end: end_of(field),
        next,
        span: field.span(),
    };
    fields.iter().zip(nexts).map(gap).collect()
}

fn offset(field: &Field<'_>) -> TokenStream {
    let member = &field.member;
    quote!(::core::mem::offset_of!(Self, #member))
}

fn end_of(field: &Field<'_>) -> TokenStream {
    let offset = offset(field);
    let ty = field.ty();
    quote!(#offset + ::core::mem::size_of::<#ty>())
}

fn sized<'a>(object: &'a Object<'a>, fields: &'a [Field<'a>], transparent: bool) -> Items {
    let impls = Impls::new(object, fields.iter()).with_last(fields.last());
    let Impls { krate, private, .. } = &impls;
    let (name, version) = title(object);
    let entries = fields.iter().map(|field| entry(&impls, field));
    let schema = quote! {
        &#private::struct_schema::<Self>(#name, #version, &[#(#entries,)*])
    };
    let gaps = if transparent {
        vec![impls.sum(fields)]
    } else {
        gaps(fields, quote!(::core::mem::size_of::<Self>()))
    };
    let (schema, checks) = impls.checked_schema(&schema, &gaps);
    let types = fields.iter().map(Field::ty);
    let check_fields = fields.iter().map(|field| check_field(&impls, field));
    let all: Vec<&Field<'_>> = fields.iter().collect();
    let plasma_object = impls.plasma_object(&Parts {
        fields: &all,
        schema,
        all_bits_valid: all_of(krate, fields, &quote!(ALL_BITS_VALID)),
        check: quote! {
            #(#check_fields)*
            ::core::result::Result::Ok(())
        },
        from_parts: quote!(__plasma_start.cast()),
        tail_len: quote!(0),
    });
    // A generic type's padding would not be seen by who relies on `NoUninit` alone. A transparent
    // one is what its field is.
    let no_uninit = match (impls.is_generic(), transparent) {
        (false, _) => Some(quote!()),
        (true, true) => Some(quote!(#(#types: #private::bytemuck::NoUninit,)*)),
        (true, false) => None,
    };
    let zero_valid = impls.zero_valid(fields.iter());
    let bytemuck = impls.bytemuck(no_uninit.as_ref());
    let copy_check = impls.copy_check();
    Items {
        impls: quote!(#plasma_object #zero_valid #bytemuck),
        checks: quote!(#checks #copy_check),
    }
}

fn tailed<'a>(object: &'a Object<'a>, head: &'a [Field<'a>], tail: &'a Field<'a>) -> Items {
    let all = || head.iter().chain([tail]);
    let impls = Impls::new(object, all());
    let Impls { krate, private, .. } = &impls;
    let (name, version) = title(object);
    let Field {
        member: tail_member,
        name: tail_name,
        ..
    } = tail;
    let tail_type = tail.ty();
    let head_types = head.iter().map(Field::ty);

    let entries = head.iter().map(|field| entry(&impls, field));
    // `offset_of!` does not tell where a slice starts, nor `align_of` how what ends with one is
    // aligned.
    let layout = quote! {{
        let __plasma_room = #private::Room::<(#(#head_types,)*)>::new();
        let __plasma_value =
            ::core::ptr::slice_from_raw_parts(__plasma_room.start(), 0) as *const Self;
        // SAFETY: the room is made for this head.
        unsafe { __plasma_room.layout(__plasma_value, &raw const (*__plasma_value).#tail_member) }
    }};
    let tail_schema = quote!(<#tail_type as #krate::PlasmaObject>::SCHEMA);
    let schema = quote! {
        &#private::tailed_schema(#name, #version, #layout, const { &[
            #(#entries,)*
            #private::Field {
                name: #tail_name,
                offset: #layout.tail_offset(),
                schema: #tail_schema,
            },
        ] })
    };
    // Behind the tail there may be some: the object reaches that far.
    let gaps = gaps(head, quote!(#layout.tail_offset()));
    let (schema, checks) = impls.checked_schema(&schema, &gaps);

    let check_head = head.iter().map(|field| check_field(&impls, field));
    let fields: Vec<&Field<'_>> = all().collect();
    let plasma_object = impls.plasma_object(&Parts {
        fields: &fields,
        schema,
        all_bits_valid: all_of(krate, all(), &quote!(ALL_BITS_VALID)),
        check: quote! {
            #(#check_head)*
            <#tail_type as #krate::PlasmaObject>::check_tail(
                __plasma_bytes, const { #layout.tail_offset() }, #tail_name,
            )
        },
        from_parts: quote! {
            <#tail_type as #krate::PlasmaObject>::from_parts(__plasma_start, __plasma_len)
                as *const Self
        },
        tail_len: quote! {
            <#tail_type as #krate::PlasmaObject>::tail_len(&__plasma_value.#tail_member)
        },
    });
    let variable_len = impls.implement(&quote!(#krate::VariableLen), &quote!(), &quote!());
    let zero_valid = impls.zero_valid(all());
    Items {
        impls: quote!(#plasma_object #zero_valid #[automatically_derived] #variable_len),
        checks,
    }
}

fn unit_enum(object: &Object<'_>, repr: &Primitive, variants: &[Variant<'_>]) -> Items {
    let impls = Impls::new(object, [].into_iter());
    let Impls { krate, private, .. } = &impls;
    let (name, version) = title(object);
    let ident = object.ident;
    let repr = repr.ident();
    let repr = quote!(::core::primitive::#repr);
    let names = variants.iter().map(|it| &it.name);
    // An enum with `Drop` cannot be cast: one message, at its name, says so.
    let numbers: Vec<TokenStream> = variants
        .iter()
        .map(|it| {
            let variant = &it.original.ident;
            standing_at(ident.span(), quote!(#ident::#variant as #repr))
        })
        .collect();
    let schema = quote! {
        &#private::enum_schema::<Self, #repr>(#name, #version, &[
            #(#private::Variant { name: #names, value: (#numbers) as ::core::primitive::i128 },)*
        ])
    };
    let (schema, checks) = impls.checked_schema(&schema, &[]);
    let plasma_object = impls.plasma_object(&Parts {
        fields: &[],
        schema,
        all_bits_valid: quote!(#private::all_bits_valid(<Self as #krate::PlasmaObject>::SCHEMA)),
        // Arms with guards, which become a `match` on numbers or a comparison with a range.
        check: quote! {
            #private::check_enum::<Self, #repr>(__plasma_bytes, |__plasma_number| {
                match __plasma_number {
                    #(_ if __plasma_number == (#numbers) => true,)*
                    _ => false,
                }
            })
        },
        from_parts: quote!(__plasma_start.cast()),
        tail_len: quote!(0),
    });
    let more = quote! {
        for<'__plasma> Self:
            #private::HasZero<'__plasma, {
                #private::has_zero(<#ident as #krate::PlasmaObject>::SCHEMA)
            }>,
    };
    let zero_valid = (!lacks_zero(variants)).then(|| {
        let item = impls.implement(&quote!(#krate::ZeroValid), &more, &quote!());
        quote!(#[automatically_derived] unsafe #item)
    });
    let bytemuck = impls.bytemuck(Some(&quote!()));
    let copy_check = impls.copy_check();
    Items {
        impls: quote!(#plasma_object #zero_valid #bytemuck),
        checks: quote!(#checks #copy_check),
    }
}

/// Whether no variant is 0 for certain, so that `ZeroValid` need not be decided by the compiler, and
/// what it says of its lack is simpler.
fn lacks_zero(variants: &[Variant<'_>]) -> bool {
    let mut next = Some(0_i128);
    for variant in variants {
        let number = match &variant.original.discriminant {
            Some((_, expr)) => literal(expr),
            None => next,
        };
        match number {
            Some(0) | None => return false,
            Some(number) => next = number.checked_add(1),
        }
    }
    true
}

fn literal(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Lit(ExprLit {
            lit: Lit::Int(literal),
            ..
        }) => literal.base10_parse().ok(),
        Expr::Unary(ExprUnary {
            op: UnOp::Neg(_),
            expr,
            ..
        }) => literal(expr)?.checked_neg(),
        _ => None,
    }
}

/// Name and version, as schemas have them.
fn title(object: &Object<'_>) -> (String, u32) {
    let name = object.attrs.name.clone();
    let name = name.unwrap_or_else(|| object.ident.unraw().to_string());
    (name, object.attrs.version.unwrap_or(1))
}

/// A field of known size in the schema.
fn entry(impls: &Impls<'_>, field: &Field<'_>) -> TokenStream {
    let Impls { krate, private, .. } = impls;
    let name = &field.name;
    let offset = offset(field);
    let ty = field.ty();
    quote! {
        #private::Field {
            name: #name,
            offset: #offset,
            schema: <#ty as #krate::PlasmaObject>::SCHEMA,
        }
    }
}

fn check_field(impls: &Impls<'_>, field: &Field<'_>) -> TokenStream {
    let krate = &impls.krate;
    let name = &field.name;
    let offset = offset(field);
    let ty = field.ty();
    quote!(<#ty as #krate::PlasmaObject>::check_field(__plasma_bytes, #offset, #name)?;)
}

/// Whether all fields say so.
fn all_of<'a>(
    krate: &TokenStream,
    fields: impl IntoIterator<Item = &'a Field<'a>>,
    constant: &TokenStream,
) -> TokenStream {
    let types = fields.into_iter().map(Field::ty);
    quote!(true #(&& <#types as #krate::PlasmaObject>::#constant)*)
}

/// Whether one of the parameters is among the tokens.
fn mentions(tokens: TokenStream, parameters: &[&Ident]) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => parameters.iter().any(|it| ident == **it),
        TokenTree::Group(group) => mentions(group.stream(), parameters),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}
