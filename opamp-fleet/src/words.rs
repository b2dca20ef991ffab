//! Closed sets of words: the same spelling in selectors, API values, metrics and stored facts.

/// Declares a fieldless enum whose variants have one spelling everywhere.
macro_rules! closed_set {
    (
        $(#[$meta:meta])*
        pub enum $name:ident ($what:literal) {
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $( $(#[$variant_meta])* #[serde(rename = $word)] $variant, )+
        }

        impl $name {
            /// Every member, in declaration order: the order of [`Self::index`].
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The word used in APIs, selectors and metric labels.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }

            /// Position in [`Self::ALL`], for counters kept in an array.
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err($crate::UnknownWord { what: $what, found: word.to_owned(), known: &[$($word),+] }),
                }
            }
        }
    };
}

pub(crate) use closed_set;

/// A word that is not in the closed set it should come from. Use one of `known`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no {what}; use one of {}", .known.join(", "))]
pub struct UnknownWord {
    /// What the word should have named.
    pub what: &'static str,
    /// The word.
    pub found: String,
    /// Every word that is accepted.
    pub known: &'static [&'static str],
}
