//! A schema as numpy is told of it.

use std::fmt::Write;

use super::{Scalar, Schema, Shape};

pub(super) fn dtype(schema: &Schema) -> String {
    let mut text = String::new();
    write(&mut text, schema);
    text
}

fn write(text: &mut String, schema: &Schema) {
    match schema.shape {
        Shape::Scalar(scalar) | Shape::Enum { repr: scalar, .. } => write_scalar(text, scalar),
        Shape::Str => write_scalar(text, Scalar::U8),
        Shape::Slice { element } => write(text, element),
        Shape::Array { .. } => write_array(text, schema),
        Shape::Struct { fields, .. } => {
            // numpy has no use for what takes no space, and a tail has a place of its own.
            let fields = || {
                let has_space = |schema: &Schema| schema.size > 0;
                fields.iter().filter(move |field| has_space(field.schema))
            };
            text.push_str("{'names': [");
            list(text, fields(), |text, field| write_string(text, field.name));
            text.push_str("], 'formats': [");
            list(text, fields(), |text, field| write(text, field.schema));
            text.push_str("], 'offsets': [");
            list(text, fields(), |text, field| push(text, field.offset));
            text.push_str("], 'itemsize': ");
            push(text, schema.size);
            text.push('}');
        }
    }
}

/// An array of arrays is one array of more dimensions.
fn write_array(text: &mut String, schema: &Schema) {
    let mut lens = Vec::new();
    let mut innermost = schema;
    while let Shape::Array { element, len } = innermost.shape {
        lens.push(len);
        innermost = element;
    }
    text.push('(');
    write(text, innermost);
    text.push_str(", (");
    for len in lens {
        push(text, len);
        text.push(',');
    }
    text.push_str("))");
}

fn write_scalar(text: &mut String, scalar: Scalar) {
    let code = scalar.numpy_code();
    let order = match (code, cfg!(target_endian = "little")) {
        ("b1" | "u1" | "i1" | "V16", _) => "|",
        (_, true) => "<",
        (_, false) => ">",
    };
    push(text, format_args!("'{order}{code}'"));
}

/// A Python string; names may hold anything.
fn write_string(text: &mut String, string: &str) {
    text.push('\'');
    for character in string.chars() {
        match character {
            '\'' | '\\' => text.extend(['\\', character]),
            control if control.is_control() => {
                push(text, format_args!("\\u{:04x}", u32::from(control)));
            }
            other => text.push(other),
        }
    }
    text.push('\'');
}

fn list<T>(text: &mut String, items: impl Iterator<Item = T>, write: impl Fn(&mut String, T)) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        write(text, item);
    }
}

fn push(text: &mut String, what: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{what}");
}
