//! Messages in the words of Python: those of the library name the options of the program where they say what to do.

/// Options of the program, and what they are called in Python; an option that begins another one stands behind that.
const OPTIONS: [(&str, &str); 24] = [
    // A command of the program stays one.
    ("`fit --out`", "`dualgrain fit --out`"),
    ("--activations static", "activations=\"static\""),
    ("--prompt plus --generate", "prompt_tokens plus generate_tokens"),
    ("--step-tokens", "step_tokens"),
    ("--prompt", "prompt_tokens"),
    ("--generate", "generate_tokens"),
    ("--batch", "batch"),
    ("--lm-head", "lm_head"),
    ("--threads", "threads"),
    ("--kv int8", "kv_cache=\"int8\""),
    ("--kv", "kv_cache"),
    ("--windows 2", "windows=2"),
    ("--windows", "windows"),
    ("--context", "window_tokens"),
    ("--calib", "texts or files"),
    ("--resume", "journal=\"resume\""),
    ("--restart", "journal=\"restart\""),
    ("--replace", "replace=True"),
    ("--hadamard-down", "hadamard_down"),
    ("--rotate", "rotate"),
    ("another --scheme", "another scheme"),
    ("--scheme", "schemes"),
    ("--bits", "bits"),
    ("--out", "out"),
];

/// What a message of the library says in Python. Options stand behind a space or a parenthesis; what only looks like one in a path stays.
pub fn in_python(message: &str) -> String {
    let begins = [" ", "("];
    let renamed = |message: String, (option, name): &(&str, &str)| {
        begins.iter().fold(message, |message, begin| {
            message.replace(&format!("{begin}{option}"), &format!("{begin}{name}"))
        })
    };
    let words = OPTIONS.iter().fold(format!(" {message}"), renamed);
    words.strip_prefix(' ').unwrap_or(&words).to_owned()
}
