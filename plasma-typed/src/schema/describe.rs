//! Schemas as they are stored with objects: read back, shown, and compared.

use std::fmt;

use serde_json::{Number, Value};

use super::{Schema, Shape};

/// Longest stored schema that is read back, in bytes. It is read for messages only, and what people
/// write takes a few hundred.
const MAX_LEN: usize = 1 << 20;

/// A schema, this program's or another's, as its JSON form has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    endian: String,
    size: u64,
    align: u64,
    r#type: Type,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    /// A scalar, or `str`.
    Plain(String),
    Array {
        array: Box<Type>,
        len: u64,
    },
    Slice {
        slice: Box<Type>,
    },
    Struct {
        r#struct: String,
        version: u32,
        size: u64,
        fields: Vec<Field>,
    },
    Enum {
        r#enum: String,
        version: u32,
        repr: String,
        variants: Vec<Variant>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: String,
    offset: u64,
    r#type: Type,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Variant {
    name: String,
    value: Number,
}

impl Stored {
    /// Reads a schema that came with an object; `None` if it is none, or too long to be looked at.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let json = (json.len() <= MAX_LEN).then_some(json)?;
        // Nested 128 deep at most: that is where the parser stops.
        let json: Value = serde_json::from_slice(json).ok()?;
        Some(Self {
            endian: text(json.get("endian")?)?,
            size: json.get("size")?.as_u64()?,
            align: json.get("align")?.as_u64()?,
            r#type: Type::read(json.get("type")?)?,
        })
    }

    /// The type in a few words: `` `market.Tick` v1 `` or `` `[f64]` ``.
    pub(crate) fn title(&self) -> String {
        match &self.r#type {
            Type::Struct {
                r#struct: name,
                version,
                ..
            }
            | Type::Enum {
                r#enum: name,
                version,
                ..
            } => format!("`{name}` v{version}"),
            other => format!("`{other}`"),
        }
    }

    /// In what this schema, found with an object, differs from the one that was expected, beside
    /// the [`title`](Self::title). What is called otherwise is another type, which says it all.
    pub(crate) fn differences(&self, expected: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        if self.endian != expected.endian {
            differences.push(format!(
                "its bytes are in {}-endian order, this program's in {}-endian",
                self.endian, expected.endian
            ));
        }
        if self.r#type.name() != expected.r#type.name() {
            return differences;
        }
        compare("", &self.r#type, &expected.r#type, &mut differences);
        if differences.is_empty() && (self.size, self.align) != (expected.size, expected.align) {
            differences.push(format!(
                "it has {} bytes aligned to {}, expected {} aligned to {}",
                self.size, self.align, expected.size, expected.align
            ));
        }
        differences
    }
}

/// Says how types that may be called the same differ inside; `path` leads to where they are.
fn compare(path: &str, found: &Type, expected: &Type, differences: &mut Vec<String>) {
    match (found, expected) {
        (
            Type::Struct { fields: found, .. },
            Type::Struct {
                fields: expected, ..
            },
        ) => compare_fields(path, found, expected, differences),
        (
            Type::Enum {
                repr: found_repr,
                variants: found,
                ..
            },
            Type::Enum {
                repr: expected_repr,
                variants: expected,
                ..
            },
        ) => {
            let of = match path {
                "" => String::new(),
                path => format!(" of `{path}`"),
            };
            if found_repr != expected_repr {
                differences.push(format!(
                    "the number{of} is {found_repr}, expected {expected_repr}"
                ));
            }
            compare_variants(&of, found, expected, differences);
        }
        (
            Type::Array { array: found, .. },
            Type::Array {
                array: expected, ..
            },
        )
        | (Type::Slice { slice: found }, Type::Slice { slice: expected }) => {
            compare(&format!("{path}[]"), found, expected, differences);
        }
        _ => {}
    }
}

fn compare_fields(path: &str, found: &[Field], expected: &[Field], differences: &mut Vec<String>) {
    let within = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    let mut moved = Vec::new();
    for field in found {
        let name = within(&field.name);
        let Some(wanted) = expected.iter().find(|other| other.name == field.name) else {
            differences.push(format!("field `{name}` ({field}) is not expected"));
            continue;
        };
        if field.to_string() == wanted.to_string() {
            compare(&name, &field.r#type, &wanted.r#type, differences);
        } else if field.r#type.to_string() == wanted.r#type.to_string() {
            // It is only where it is because another is what it is.
            moved.push(format!(
                "field `{name}` lies at {}, expected at {}",
                field.offset, wanted.offset
            ));
        } else {
            differences.push(format!("field `{name}` is {field}, expected {wanted}"));
        }
    }
    for wanted in expected {
        if !found.iter().any(|field| field.name == wanted.name) {
            let name = within(&wanted.name);
            differences.push(format!("field `{name}` ({wanted}) is missing"));
        }
    }
    differences.append(&mut moved);
}

fn compare_variants(
    of: &str,
    found: &[Variant],
    expected: &[Variant],
    differences: &mut Vec<String>,
) {
    for Variant { name, value } in found {
        match expected.iter().find(|other| other.name == *name) {
            Some(wanted) if wanted.value == *value => {}
            Some(wanted) => differences.push(format!(
                "variant `{name}`{of} is {value}, expected {}",
                wanted.value
            )),
            None => differences.push(format!("variant `{name}`{of} ({value}) is not expected")),
        }
    }
    for Variant { name, value } in expected {
        if !found.iter().any(|variant| variant.name == *name) {
            differences.push(format!("variant `{name}`{of} ({value}) is missing"));
        }
    }
}

impl From<&Schema> for Stored {
    fn from(schema: &Schema) -> Self {
        Self {
            endian: super::json::ENDIAN.to_owned(),
            size: schema.size as u64,
            align: schema.align as u64,
            r#type: schema.into(),
        }
    }
}

impl From<&Schema> for Type {
    fn from(schema: &Schema) -> Self {
        match schema.shape {
            Shape::Scalar(scalar) => Self::Plain(scalar.name().to_owned()),
            Shape::Str => Self::Plain("str".to_owned()),
            Shape::Slice { element } => Self::Slice {
                slice: Box::new(element.into()),
            },
            Shape::Array { element, len } => Self::Array {
                array: Box::new(element.into()),
                len: len as u64,
            },
            Shape::Struct {
                name,
                version,
                fields,
            } => Self::Struct {
                r#struct: name.to_owned(),
                version,
                size: schema.size as u64,
                fields: fields.iter().map(Field::from).collect(),
            },
            Shape::Enum {
                name,
                version,
                repr,
                variants,
            } => Self::Enum {
                r#enum: name.to_owned(),
                version,
                repr: repr.name().to_owned(),
                variants: variants.iter().map(Variant::from).collect(),
            },
        }
    }
}

impl From<&super::Field> for Field {
    fn from(field: &super::Field) -> Self {
        Self {
            name: field.name.to_owned(),
            offset: field.offset as u64,
            r#type: field.schema.into(),
        }
    }
}

impl From<&super::Variant> for Variant {
    fn from(variant: &super::Variant) -> Self {
        Self {
            name: variant.name.to_owned(),
            // An enum's numbers have 64 bits at most.
            value: Number::from_i128(variant.value).unwrap_or_else(|| Number::from(0)),
        }
    }
}

/// A peer's text as it can be shown on a terminal, whatever it holds.
fn text(json: &Value) -> Option<String> {
    let shown = json.as_str()?.replace(is_a_command, "\u{fffd}");
    Some(shown)
}

/// Whether a terminal takes the character for something to be done, such as a new line, or for
/// another direction of what stands around it.
fn is_a_command(character: char) -> bool {
    let turns = [
        '\u{61c}', '\u{200e}', '\u{200f}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
    ];
    character.is_control()
        || turns.contains(&character)
        || ('\u{2028}'..='\u{202e}').contains(&character)
}

fn number32(json: &Value) -> Option<u32> {
    json.as_u64()?.try_into().ok()
}

fn list<T>(json: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    json.as_array()?.iter().map(read).collect()
}

impl Type {
    /// Reads a type that came with an object, each part of it once.
    fn read(json: &Value) -> Option<Self> {
        let parts = match json {
            Value::String(_) => return Some(Self::Plain(text(json)?)),
            Value::Object(parts) => parts,
            _ => return None,
        };
        if let Some(element) = parts.get("array") {
            Some(Self::Array {
                array: Box::new(Self::read(element)?),
                len: json.get("len")?.as_u64()?,
            })
        } else if let Some(element) = parts.get("slice") {
            Some(Self::Slice {
                slice: Box::new(Self::read(element)?),
            })
        } else if let Some(name) = parts.get("struct") {
            Some(Self::Struct {
                r#struct: text(name)?,
                version: number32(json.get("version")?)?,
                size: json.get("size")?.as_u64()?,
                fields: list(json.get("fields")?, Field::read)?,
            })
        } else {
            Some(Self::Enum {
                r#enum: text(parts.get("enum")?)?,
                version: number32(json.get("version")?)?,
                repr: text(json.get("repr")?)?,
                variants: list(json.get("variants")?, Variant::read)?,
            })
        }
    }

    /// What it is called, whatever its version.
    fn name(&self) -> String {
        match self {
            Self::Struct { r#struct: name, .. } | Self::Enum { r#enum: name, .. } => name.clone(),
            other => other.to_string(),
        }
    }

    /// Whether its values differ in length.
    fn has_tail(&self) -> bool {
        match self {
            Self::Slice { .. } => true,
            Self::Plain(name) => name == "str",
            Self::Struct { fields, .. } => {
                fields.last().is_some_and(|field| field.r#type.has_tail())
            }
            Self::Array { .. } | Self::Enum { .. } => false,
        }
    }
}

impl Field {
    fn read(json: &Value) -> Option<Self> {
        Some(Self {
            name: text(json.get("name")?)?,
            offset: json.get("offset")?.as_u64()?,
            r#type: Type::read(json.get("type")?)?,
        })
    }
}

impl Variant {
    fn read(json: &Value) -> Option<Self> {
        Some(Self {
            name: text(json.get("name")?)?,
            value: json.get("value")?.as_number()?.clone(),
        })
    }
}

/// What stands for the type where it is used: its name, with the version if it is not the first.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(name) => f.write_str(name),
            Self::Array { array, len } => write!(f, "[{array}; {len}]"),
            Self::Slice { slice } => write!(f, "[{slice}]"),
            Self::Struct {
                r#struct: name,
                version,
                ..
            }
            | Self::Enum {
                r#enum: name,
                version,
                ..
            } => match version {
                1 => f.write_str(name),
                version => write!(f, "{name} v{version}"),
            },
        }
    }
}

/// Type and place: `f64 at 8`.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.r#type, self.offset)
    }
}

/// The type, its size, and a line for each field in it; of an array, for its first element.
impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.r#type {
            Type::Struct {
                r#struct: name,
                version,
                ..
            }
            | Type::Enum {
                r#enum: name,
                version,
                ..
            } => write!(f, "{name} v{version}")?,
            other => write!(f, "{other}")?,
        }
        match (self.size, self.r#type.has_tail()) {
            (0, true) => f.write_str(", of any length")?,
            (size, true) => write!(f, ", {size} bytes and a tail")?,
            (1, false) => f.write_str(", 1 byte")?,
            (size, false) => write!(f, ", {size} bytes")?,
        }
        write!(f, ", aligned to {}", self.align)?;
        show_inside(f, &self.r#type, 0, 1)
    }
}

fn show_inside(f: &mut fmt::Formatter<'_>, shown: &Type, start: u64, depth: usize) -> fmt::Result {
    let indent = 2 * depth;
    match shown {
        Type::Plain(_) => Ok(()),
        Type::Array { array: inner, .. } | Type::Slice { slice: inner } => {
            show_inside(f, inner, start, depth)
        }
        Type::Struct { fields, .. } => {
            for field in fields {
                let offset = start.saturating_add(field.offset);
                let Field { name, r#type, .. } = field;
                write!(f, "\n{offset:>8}{:indent$}{name}: {type}", "")?;
                show_inside(f, r#type, offset, depth + 1)?;
            }
            Ok(())
        }
        Type::Enum { repr, variants, .. } => {
            write!(f, " ({repr}:")?;
            for (index, Variant { name, value }) in variants.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                write!(f, "{comma} {name} = {value}")?;
            }
            f.write_str(")")
        }
    }
}
