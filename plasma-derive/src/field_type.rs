//! Field types that are known not to be objects, and what to use instead.
//!
//! They are told by their names, as that is all a macro sees: one word, or a path into the standard
//! library. `self::String` is somebody's own type, on which the compiler decides.

use proc_macro2::Ident;
use quote::ToTokens;
use syn::{Error, Path, Type, TypeArray, TypeSlice};

use crate::ast::peel;

/// Why a type cannot be that of a field, if that can be seen.
pub(crate) fn problem(field: &str, ty: &Type, parameters: &[&Ident]) -> Option<Error> {
    let refuse = |tokens: &dyn ToTokens, problem: String| {
        let message = format!("field `{field}`: {problem}");
        Some(Error::new_spanned(tokens.to_token_stream(), message))
    };
    match ty {
        Type::Paren(_) | Type::Group(_) => problem(field, peel(ty), parameters),
        Type::Array(TypeArray { elem, .. }) | Type::Slice(TypeSlice { elem, .. }) => {
            match peel(elem) {
                inner if matches!(inner, Type::Slice(_)) || is_str(inner, parameters) => refuse(
                    inner,
                    "elements have a fixed size: use an array `[T; N]`, or store the parts one \
                     after the other, with the places where each ends beside them"
                        .to_owned(),
                ),
                inner => problem(field, inner, parameters),
            }
        }
        Type::Reference(reference) => {
            let instead = match peel(&reference.elem) {
                Type::Slice(_) => "use an array `[T; N]`, or end the struct with the `[T]` itself",
                elem if is_str(elem, parameters) => {
                    "use `[u8; N]`, or end the struct with the `str` itself"
                }
                _ => "hold the value itself, or the id of an object that does",
            };
            refuse(
                ty,
                format!("a reference {POINTS}, so it cannot live in shared memory: {instead}"),
            )
        }
        Type::Ptr(_) => refuse(ty, pointer("a raw pointer")),
        Type::FnPtr(_) => refuse(
            ty,
            "a function is elsewhere in every process, so a pointer to it cannot live in shared \
             memory: hold a number or an enum that stands for it"
                .to_owned(),
        ),
        Type::TraitObject(_) => refuse(
            ty,
            "a `dyn` value points to the functions of one process, so it cannot live in shared \
             memory: hold a value of one type"
                .to_owned(),
        ),
        Type::ImplTrait(_) => refuse(ty, "an object's fields have types with names".to_owned()),
        Type::Tuple(tuple) if tuple.elems.is_empty() => {
            refuse(ty, "`()` holds nothing: leave the field out".to_owned())
        }
        Type::Tuple(_) => refuse(
            ty,
            "Rust does not say how a tuple lies in memory: use a struct of its own that derives \
             `PlasmaObject`, or an array"
                .to_owned(),
        ),
        Type::Path(path) if path.qself.is_none() => {
            let name = standard_name(&path.path, parameters)?;
            refuse(ty, named(&name)?)
        }
        _ => None,
    }
}

/// Whether it is `str`.
pub(crate) fn is_str(ty: &Type, parameters: &[&Ident]) -> bool {
    match peel(ty) {
        Type::Path(path) if path.qself.is_none() => {
            standard_name(&path.path, parameters).is_some_and(|name| name == "str")
        }
        _ => false,
    }
}

/// The type's own name, if the path may lead to the standard library.
fn standard_name(path: &Path, parameters: &[&Ident]) -> Option<String> {
    let first = &path.segments.first()?.ident;
    let last = &path.segments.last()?.ident;
    let name = last.to_string();
    let standard = match path.segments.len() {
        1 => {
            let is_own = path.leading_colon.is_some() || parameters.contains(&first);
            let has_arguments = !path.segments.last()?.arguments.is_empty();
            !is_own && (has_arguments || !is_often_redefined(&name))
        }
        _ => first == "std" || first == "core" || first == "alloc",
    };
    standard.then_some(name)
}

/// Names that, alone and without arguments, are rather somebody's own: the standard library's take
/// arguments, or are types that others have as well.
fn is_often_redefined(name: &str) -> bool {
    let plain = [
        "String", "OsString", "CString", "PathBuf", "usize", "isize", "str",
    ];
    !plain.contains(&name) && !name.starts_with("Atomic")
}

const POINTS: &str = "points into one process's own memory";

fn points(name: &str, instead: &str) -> String {
    format!("`{name}` {POINTS}, so it cannot live in shared memory: {instead}")
}

fn pointer(name: &str) -> String {
    format!(
        "{name} {POINTS}, so it cannot live in shared memory: use an index or an offset (`u64`), \
         or hold the value itself"
    )
}

fn changes(name: &str, instead: &str) -> String {
    format!(
        "`{name}` changes behind a shared reference, and sealed objects do not change: {instead}"
    )
}

fn named(name: &str) -> Option<String> {
    Some(match name {
        "String" | "OsString" | "CString" | "PathBuf" => points(
            name,
            "use `[u8; N]`, or store the text as an object of its own (`client.put`)",
        ),
        "Vec" | "VecDeque" | "LinkedList" | "BinaryHeap" => points(
            name,
            "use an array `[T; N]`, or end the struct with a slice `[T]`",
        ),
        "HashMap" | "BTreeMap" | "HashSet" | "BTreeSet" => points(
            name,
            "use an array `[T; N]` of entries, sorted perhaps, or end the struct with a slice \
             `[T]` of them",
        ),
        "Box" | "Rc" | "Arc" | "Weak" | "Cow" => points(
            name,
            "hold the value itself, or the id of an object that does",
        ),
        "NonNull" => pointer("`NonNull`"),
        "usize" => "`usize` differs between machines: use `u64`".to_owned(),
        "isize" => "`isize` differs between machines: use `i64`".to_owned(),
        "Cell" | "RefCell" | "UnsafeCell" | "OnceCell" | "LazyCell" | "Mutex" | "RwLock"
        | "OnceLock" | "LazyLock" => changes(name, "hold the value itself"),
        "AtomicBool" => changes(name, "use `bool`"),
        "AtomicPtr" => pointer("`AtomicPtr`"),
        "AtomicUsize" => changes(name, "use `u64`"),
        "AtomicIsize" => changes(name, "use `i64`"),
        "AtomicU8" | "AtomicU16" | "AtomicU32" | "AtomicU64" | "AtomicI8" | "AtomicI16"
        | "AtomicI32" | "AtomicI64" => {
            let integer = name.replace("Atomic", "").to_lowercase();
            changes(name, &format!("use `{integer}`"))
        }
        "Option" => {
            "Rust does not say how an `Option` lies in memory: use a value that stands for \
                     none, such as 0, or a `bool` field beside it"
                .to_owned()
        }
        "Result" => "Rust does not say how a `Result` lies in memory: use an enum without fields, \
                     and fields beside it"
            .to_owned(),
        "Duration" => {
            "Rust does not say how a `Duration` lies in memory: use nanoseconds in a `u64`"
                .to_owned()
        }
        "SystemTime" => {
            "Rust does not say how a `SystemTime` lies in memory: use nanoseconds since \
                         1970 in a `u64`"
                .to_owned()
        }
        "Instant" => "an `Instant` means nothing on another machine: use nanoseconds since 1970 \
                      (`SystemTime`) in a `u64`"
            .to_owned(),
        "MaybeUninit" => "what is stored is initialised: hold the value itself".to_owned(),
        _ => return None,
    })
}
