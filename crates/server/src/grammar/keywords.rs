//! The keywords of JSON Schema (draft 2020-12) that schemas may have.

/// What stands at a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A schema.
    Schema,
    /// A list of schemas, at least one.
    Schemas,
    /// An object of schemas.
    Map,
    /// A reference within the schema: `#` or `#/...`.
    Reference,
    /// Any JSON value.
    Constant,
    /// A list of JSON values, at least one.
    Constants,
    /// A type, or a list of types.
    Type,
    /// A whole number, at least 0.
    Count,
    /// A number.
    Number,
    /// A number above 0.
    Divisor,
    /// A regular expression.
    Pattern,
    /// A format's name.
    Format,
    /// A list of texts.
    Names,
    /// It says nothing about values.
    Annotation,
    /// At the root alone, where it says nothing about values.
    RootAnnotation,
}

/// Every keyword that is followed, or harmless.
pub const KEYWORDS: &[(&str, Kind)] = &[
    ("type", Kind::Type),
    ("enum", Kind::Constants),
    ("const", Kind::Constant),
    ("properties", Kind::Map),
    ("patternProperties", Kind::Map),
    ("additionalProperties", Kind::Schema),
    ("required", Kind::Names),
    ("minProperties", Kind::Count),
    ("maxProperties", Kind::Count),
    ("items", Kind::Schema),
    ("prefixItems", Kind::Schemas),
    ("minItems", Kind::Count),
    ("maxItems", Kind::Count),
    ("minLength", Kind::Count),
    ("maxLength", Kind::Count),
    ("pattern", Kind::Pattern),
    ("format", Kind::Format),
    ("minimum", Kind::Number),
    ("maximum", Kind::Number),
    ("exclusiveMinimum", Kind::Number),
    ("exclusiveMaximum", Kind::Number),
    ("multipleOf", Kind::Divisor),
    ("anyOf", Kind::Schemas),
    ("oneOf", Kind::Schemas),
    ("allOf", Kind::Schemas),
    ("$ref", Kind::Reference),
    ("$defs", Kind::Map),
    ("definitions", Kind::Map),
    ("title", Kind::Annotation),
    ("description", Kind::Annotation),
    ("default", Kind::Annotation),
    ("examples", Kind::Annotation),
    ("deprecated", Kind::Annotation),
    ("readOnly", Kind::Annotation),
    ("writeOnly", Kind::Annotation),
    ("$comment", Kind::Annotation),
    ("$schema", Kind::RootAnnotation),
    ("$id", Kind::RootAnnotation),
];

/// Drafts that a schema may name. What is followed means the same in all of them, or is refused.
pub const DRAFTS: &[&str] = &[
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
];

/// What stands at a keyword; `None` where it is not followed.
pub fn kind(keyword: &str) -> Option<Kind> {
    let found = KEYWORDS.iter().find(|(name, _)| *name == keyword);
    found.map(|&(_, kind)| kind)
}
