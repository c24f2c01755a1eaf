//! The one list of formats: everything that iterates over them does it through this.

/// Calls `$callback!` with every format as `Type = GGUF type id`, after the tokens given behind the callback's name.
///
/// The type's name is also the name of its [`WeightFormat`](crate::WeightFormat) variant. A new format is one more entry.
///
/// ```
/// macro_rules! names {
///     ([] $($format:ident = $id:literal),* $(,)?) => {
///         [$((<quantblock::format::$format as quantblock::QuantBlock>::NAME, $id)),*]
///     };
/// }
/// let formats: [(&str, u32); 14] = quantblock::for_each_format!(names);
/// assert!(formats.contains(&("Q4_K", 12)));
/// ```
#[macro_export]
macro_rules! for_each_format {
    ($callback:ident $($args:tt)*) => {
        $callback! {
            [$($args)*]
            F32 = 0,
            F16 = 1,
            BF16 = 30,
            Q40 = 2,
            Q41 = 3,
            Q50 = 6,
            Q51 = 7,
            Q80 = 8,
            Q2K = 10,
            Q3K = 11,
            Q4K = 12,
            Q5K = 13,
            Q6K = 14,
            Q8K = 15,
        }
    };
}
