//! What a user types and sees: arguments with their help, the terminal, tables read and printed. Nothing here knows a verb's
//! work.

pub mod arguments;
pub mod columns;
pub mod exit_code;
pub mod interruption;
pub mod manual;
pub mod output_file;
pub mod table;
pub mod terminal;
pub mod units;
