//! Language tags: containers carry ISO 639-2 codes of three letters, the index BCP 47, which wants the two-letter code where one exists.

/// The commonest languages of films; both the bibliographic and the terminology code where they differ (ISO 639-2).
const TWO_LETTERS: &[(&str, &str)] = &[
    ("ara", "ar"),
    ("ben", "bn"),
    ("bul", "bg"),
    ("cat", "ca"),
    ("ces", "cs"),
    ("cze", "cs"),
    ("chi", "zh"),
    ("zho", "zh"),
    ("dan", "da"),
    ("deu", "de"),
    ("ger", "de"),
    ("dut", "nl"),
    ("nld", "nl"),
    ("ell", "el"),
    ("gre", "el"),
    ("eng", "en"),
    ("est", "et"),
    ("fas", "fa"),
    ("per", "fa"),
    ("fin", "fi"),
    ("fra", "fr"),
    ("fre", "fr"),
    ("heb", "he"),
    ("hin", "hi"),
    ("hrv", "hr"),
    ("hun", "hu"),
    ("ind", "id"),
    ("ita", "it"),
    ("jpn", "ja"),
    ("kor", "ko"),
    ("lav", "lv"),
    ("lit", "lt"),
    ("may", "ms"),
    ("msa", "ms"),
    ("nor", "no"),
    ("pol", "pl"),
    ("por", "pt"),
    ("ron", "ro"),
    ("rum", "ro"),
    ("rus", "ru"),
    ("slk", "sk"),
    ("slo", "sk"),
    ("slv", "sl"),
    ("spa", "es"),
    ("srp", "sr"),
    ("swe", "sv"),
    ("tha", "th"),
    ("tur", "tr"),
    ("ukr", "uk"),
    ("urd", "ur"),
    ("vie", "vi"),
];

/// What the languages call themselves: viewers look for their own.
const NAMES: &[(&str, &str)] = &[
    ("ar", "العربية"),
    ("bg", "Български"),
    ("bn", "বাংলা"),
    ("ca", "Català"),
    ("cs", "Čeština"),
    ("da", "Dansk"),
    ("de", "Deutsch"),
    ("el", "Ελληνικά"),
    ("en", "English"),
    ("es", "Español"),
    ("et", "Eesti"),
    ("fa", "فارسی"),
    ("fi", "Suomi"),
    ("fr", "Français"),
    ("he", "עברית"),
    ("hi", "हिन्दी"),
    ("hr", "Hrvatski"),
    ("hu", "Magyar"),
    ("id", "Bahasa Indonesia"),
    ("it", "Italiano"),
    ("ja", "日本語"),
    ("ko", "한국어"),
    ("lt", "Lietuvių"),
    ("lv", "Latviešu"),
    ("ms", "Bahasa Melayu"),
    ("nl", "Nederlands"),
    ("no", "Norsk"),
    ("pl", "Polski"),
    ("pt", "Português"),
    ("ro", "Română"),
    ("ru", "Русский"),
    ("sk", "Slovenčina"),
    ("sl", "Slovenščina"),
    ("sr", "Српски"),
    ("sv", "Svenska"),
    ("th", "ไทย"),
    ("tr", "Türkçe"),
    ("uk", "Українська"),
    ("ur", "اردو"),
    ("vi", "Tiếng Việt"),
    ("zh", "中文"),
];

/// What a menu calls a language; for a tag that is not known here, the tag.
pub(crate) fn name(tag: &str) -> String {
    let (primary, rest) = tag.split_once('-').unwrap_or((tag, ""));
    match (NAMES.iter().find(|(two, _)| *two == primary), rest) {
        (None, _) => tag.to_owned(),
        (Some((_, name)), "") => (*name).to_owned(),
        (Some((_, name)), rest) => format!("{name} ({})", rest.to_ascii_uppercase()),
    }
}

/// Longest tag that the index takes (RFC 5646 §4.4.1).
const MAX_TAG_BYTES: usize = 35;

/// A BCP 47 tag for a container's language tag, or `None` when it names no language (`und`) or is no tag at all.
pub(crate) fn bcp47(tag: &str) -> Option<String> {
    let lower = tag.trim().to_ascii_lowercase();
    if let Some((_, two)) = TWO_LETTERS.iter().find(|(three, _)| *three == lower) {
        return Some((*two).to_owned());
    }
    (is_tag(&lower) && !matches!(lower.as_str(), "und" | "mis" | "mul" | "zxx")).then_some(lower)
}

fn is_tag(text: &str) -> bool {
    let part = |p: &str| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric());
    let primary = text.split('-').next().unwrap_or_default();
    text.len() <= MAX_TAG_BYTES
        && (2..=3).contains(&primary.len())
        && primary.bytes().all(|b| b.is_ascii_alphabetic())
        && text.split('-').all(part)
}

#[cfg(test)]
mod tests {
    use super::{TWO_LETTERS, bcp47, name};

    #[test]
    fn three_letters_become_two_and_nonsense_nothing() {
        assert_eq!(bcp47("ger").as_deref(), Some("de"));
        assert_eq!(bcp47("gsw").as_deref(), Some("gsw"));
        assert_eq!(bcp47("pt-BR").as_deref(), Some("pt-br"));
        for none in ["und", "", "e", "\"x,y", "english!", "a-b"] {
            assert_eq!(bcp47(none), None, "{none}");
        }
    }

    #[test]
    fn languages_are_called_what_they_call_themselves() {
        assert_eq!([name("de"), name("pt-br"), name("gsw")], ["Deutsch", "Português (BR)", "gsw"]);
        assert!(TWO_LETTERS.iter().all(|(_, two)| name(two) != *two));
    }
}
