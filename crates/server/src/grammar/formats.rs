//! Formats of texts, as patterns that give nothing a strict validator refuses (RFC 3339, 4122, 5321, 3986).

/// 31-day and 30-day months, February, and its 29th in leap years.
const DATE: &str = "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))\
    |(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)";
/// Without leap seconds, which exist at few times.
const TIME: &str =
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
const OCTET: &str = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
/// At most 15 characters, no hyphens beside each other.
const LABEL: &str = "[a-z](?:-?[a-z0-9]){0,7}";

/// The names of formats, in the manual's order.
pub const FORMATS: &[&str] = &[
    "date-time",
    "date",
    "time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
];

/// A pattern, from `^` to `$`, of a format; `None` for one that is not followed.
pub fn pattern(format: &str) -> Option<String> {
    let inner = match format {
        "date-time" => format!("{DATE}T{TIME}"),
        "date" => DATE.to_owned(),
        "time" => TIME.to_owned(),
        "duration" => "P(?:[0-9]{1,4}W|[0-9]{1,4}D|[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?|T(?:[0-9]{1,4}S|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?))".to_owned(),
        "email" => format!("[a-zA-Z0-9_+-]{{1,16}}(?:\\.[a-zA-Z0-9_+-]{{1,16}}){{0,2}}@{LABEL}(?:\\.{LABEL}){{1,3}}"),
        "hostname" => format!("{LABEL}(?:\\.{LABEL}){{0,5}}"),
        "ipv4" => format!("(?:{OCTET}\\.){{3}}{OCTET}"),
        "ipv6" => "(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}:){1,3}(?::[0-9a-f]{1,4}){1,3}|::(?:[0-9a-f]{1,4}:){0,5}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}:){1,6}:".to_owned(),
        "uuid" => "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".to_owned(),
        "uri" => format!("[a-z][a-z0-9+.-]{{0,15}}://{LABEL}(?:\\.{LABEL}){{0,3}}(?::[1-9][0-9]{{0,3}})?(?:/[a-zA-Z0-9._~-]{{1,32}}){{0,8}}/?(?:\\?[a-zA-Z0-9._~=&-]{{0,64}})?(?:#[a-zA-Z0-9._~-]{{0,32}})?"),
        _ => return None,
    };
    Some(format!("^(?:{inner})$"))
}
