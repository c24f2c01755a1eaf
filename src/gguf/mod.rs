//! The GGUF file format: a borrowing reader that trusts nothing, and a writer.
