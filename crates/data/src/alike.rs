//! Texts that people write in several ways.

use unicode_normalization::UnicodeNormalization;

/// Letters of Cyrillic and Greek that look like Latin ones, in lower case.
const LOOK_ALIKES: [(char, char); 20] = [
    ('а', 'a'),
    ('е', 'e'),
    ('о', 'o'),
    ('р', 'p'),
    ('с', 'c'),
    ('у', 'y'),
    ('х', 'x'),
    ('і', 'i'),
    ('ј', 'j'),
    ('ѕ', 's'),
    ('в', 'b'),
    ('к', 'k'),
    ('м', 'm'),
    ('н', 'h'),
    ('т', 't'),
    ('ο', 'o'),
    ('α', 'a'),
    ('ρ', 'p'),
    ('ν', 'v'),
    ('τ', 't'),
];

/// What is left of a text without what people do not see or do not mean: case, Unicode form (composed or not, full width,
/// ligatures), signs of no width, kinds of dashes and spaces, letters that look alike. Equal for texts that are likely one.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut apart = false;
    for letter in text.nfkc().flat_map(char::to_lowercase).nfkc() {
        if is_invisible(letter) {
            continue;
        }
        // `grade 1`, `grade-1` and `grade_1`.
        if letter.is_whitespace() || letter == '_' || is_dash(letter) {
            apart = !folded.is_empty();
            continue;
        }
        if std::mem::take(&mut apart) {
            folded.push(' ');
        }
        let plain = LOOK_ALIKES.iter().find(|(other, _)| *other == letter).map_or(letter, |&(_, latin)| latin);
        folded.push(match plain {
            '’' | '‘' | '´' | '`' => '\'',
            plain => plain,
        });
    }
    folded
}

/// [`fold`], and a text that is a whole number by its value: `1`, `1.0` and `01` are one.
pub(crate) fn fold_class(class: &str) -> String {
    let folded = fold(class);
    whole_number(&folded).unwrap_or(folded)
}

/// [`fold`], and numbers by their value: `007`, `7`, `7.0` and `7.0E+00` are one, as are `P-007` and `p7`.
pub(crate) fn fold_id(id: &str) -> String {
    let folded = fold(id);
    if let Some(whole) = whole_number(&folded) {
        return whole;
    }
    let mut plain = String::with_capacity(folded.len());
    let mut letters = folded.chars().filter(|letter| *letter != ' ').peekable();
    while let Some(letter) = letters.next() {
        let begins_number = letter == '0' && !plain.ends_with(|before: char| before.is_ascii_digit() || before == '.');
        if !(begins_number && letters.peek().is_some_and(char::is_ascii_digit)) {
            plain.push(letter);
        }
    }
    plain
}

/// The digits of a whole number, however it is written.
fn whole_number(text: &str) -> Option<String> {
    let plain = text.replace(',', ".").replace(' ', "");
    if !plain.starts_with(|first: char| first.is_ascii_digit())
        || !plain.bytes().all(|b| b.is_ascii_digit() || b".e+".contains(&b))
    {
        return None;
    }
    let digits = match plain.split_once('.') {
        None if plain.bytes().all(|byte| byte.is_ascii_digit()) => plain.as_str(),
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|byte| byte == b'0') => whole,
        // A version, or a part of a whole, is a text.
        Some(_) if !is_rounded(text) => return None,
        _ => return plain.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| format!("{number}")),
    };
    let trimmed = digits.trim_start_matches('0');
    Some(if trimmed.is_empty() { "0" } else { trimmed }.to_owned())
}

/// True for a number as a spreadsheet shows a long one: `1.2E+05`.
pub(crate) fn is_rounded(text: &str) -> bool {
    let lower = text.replace(',', ".").to_ascii_lowercase();
    let Some((number, exponent)) = lower.split_once('e') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let exponent = exponent.strip_prefix('+');
    digits(&number.replacen('.', "", 1)) && exponent.is_some_and(digits)
}

/// True for what programs write where nothing is known.
pub(crate) fn is_missing(text: &str) -> bool {
    let signs: String = fold(text).chars().filter(|letter| !"<>()[]{}\"'".contains(*letter)).collect();
    let known = [
        "",
        "nan",
        "na",
        "n/a",
        "n.a.",
        "n.a",
        "n\\a",
        "#n/a",
        "#na",
        "#n/a n/a",
        "none",
        "null",
        "nil",
        "nat",
        "missing",
        "?",
        "??",
        "???",
        ".",
        "..",
        "...",
        "/",
        "undefined",
        "empty",
        "blank",
        "not available",
        "no data",
        "1.#ind",
        "1.#qnan",
        "#null!",
        "#value!",
        "#ref!",
        "#div/0!",
        "#name?",
        "#num!",
        "not applicable",
        "pd.na",
        "inf",
    ];
    known.contains(&signs.as_str())
}

/// True for what stands for a patient who is not known.
pub(crate) fn is_nobody(id: &str) -> bool {
    let folded = fold(id);
    is_missing(id)
        || folded.bytes().all(|byte| byte == b'x')
        || ["unknown", "anonymous", "anonymized", "anonymised", "anon", "unbekannt", "anonym", "test", "patient", "unk"]
            .contains(&folded.as_str())
}

/// True for a day, as spreadsheets and programs write it: `2024-03-01`, `01.03.2024`, `1-Mar`, `Mar-24`, with a time or without.
pub(crate) fn is_date(text: &str) -> bool {
    let day = text.split([' ', 'T']).next().unwrap_or(text);
    let parts: Vec<&str> = day.split(['-', '.', '/']).collect();
    let number =
        |part: &str, lengths: &[usize]| lengths.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let month = |part: &str| {
        let lower = part.to_ascii_lowercase();
        let months = [
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "mai", "okt",
            "dez",
        ];
        months.contains(&lower.as_str())
    };
    match parts[..] {
        [year, mid, day] if number(year, &[4]) => number(mid, &[1, 2]) && number(day, &[1, 2]),
        [day, mid, year] => number(day, &[1, 2]) && (number(mid, &[1, 2]) || month(mid)) && number(year, &[2, 4]),
        [first, second] => (number(first, &[1, 2]) && month(second)) || (month(first) && number(second, &[1, 2, 4])),
        _ => false,
    }
}

/// True for a number that is measured or counted, or that names something else, not a class: with a fraction, or of six digits
/// and more.
pub(crate) fn is_long_number(text: &str) -> bool {
    let plain = text.replace(',', ".");
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let whole = whole.trim_start_matches('-');
    let fractional = fraction.bytes().any(|byte| byte != b'0');
    is_rounded(text) || (!whole.is_empty() && digits(whole) && digits(fraction) && (whole.len() >= 6 || fractional))
}

/// True for text that was read in another encoding than it was written in.
pub(crate) fn is_garbled(text: &str) -> bool {
    let letters: Vec<char> = text.chars().collect();
    let pair = |pair: &[char]| {
        // The first byte of a letter of two bytes, or of a quote or dash of three, as Windows-1252 shows it.
        matches!(pair[0], 'Ã' | 'Â' | 'Å' | 'Ä') && (matches!(pair[1], '\u{80}'..='\u{bf}') || is_of_high_half(pair[1]))
            || pair[0] == 'â' && pair[1] == '€'
    };
    letters.iter().any(|letter| *letter == '\u{fffd}' || matches!(letter, '\u{80}'..='\u{9f}'))
        || letters.windows(2).any(pair)
}

/// What Windows-1252 shows for the bytes 0x80 to 0x9f.
fn is_of_high_half(letter: char) -> bool {
    "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ".contains(letter)
}

fn is_dash(letter: char) -> bool {
    matches!(
        letter,
        '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ad}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}' | '\u{2043}'
    )
}

fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{202a}'..='\u{202e}')
        || letter.is_control() && !letter.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_look_alike_fold_to_one() {
        let alike = [
            ["Melanoma", "melanoma"],
            ["Sjögren", "Sjo\u{308}gren"],
            ["Ｆｕｌｌ", "full"],
            ["eﬀusion", "effusion"],
            ["a  b", "a b"],
            ["grade–1", "grade-1"],
            ["grade_1", "grade 1"],
            ["a\u{200b}b", "ab"],
            ["a\u{a0}b", "a b"],
            ["\u{430}denoma", "adenoma"],
        ];
        alike.iter().for_each(|[a, b]| assert_eq!(fold(a), fold(b), "{a} {b}"));
        for [a, b] in [["a", "b"], ["grade 1", "grade 2"], ["1", "10"], ["ab", "a b"]] {
            assert_ne!(fold(a), fold(b), "{a} {b}");
        }
    }

    #[test]
    fn ids_go_by_their_numbers() {
        for [a, b] in [
            ["007", "7"],
            ["7.0", "7"],
            ["1.2E+05", "120000"],
            ["P-007", "p7"],
            ["p 7", "P7"],
            ["000", "0"],
            ["7,0", "7"],
        ] {
            assert_eq!(fold_id(a), fold_id(b), "{a} {b}");
        }
        for [a, b] in [
            ["7", "70"],
            ["1.5", "15"],
            ["1.10", "1.1"],
            ["p1", "p01x"],
            ["1.2.3", "1.2.30"],
            ["10", "1"],
            ["p1", "p2"],
        ] {
            assert_ne!(fold_id(a), fold_id(b), "{a} {b}");
        }
    }

    #[test]
    fn what_stands_for_nothing() {
        for text in ["nan", "NaN", "NA", "N/A", "None", "null", "<NA>", "#N/A", "-", "--", "?", "missing", "NaT"] {
            assert!(is_missing(text), "{text}");
        }
        ["normal", "no finding", "negative", "0", "unknown", "nano"]
            .iter()
            .for_each(|text| assert!(!is_missing(text), "{text}"));
        ["unknown", "xxx", "nan"].iter().for_each(|id| assert!(is_nobody(id), "{id}"));
        ["0", "10", "p0"].iter().for_each(|id| assert!(!is_nobody(id), "{id}"));
    }

    #[test]
    fn dates_and_long_numbers_are_no_classes() {
        for date in ["2024-03-01", "2024-03-01 00:00:00", "01.03.2024", "3/1/24", "1-Mar", "Mar-24", "2024-03-01T12:00"]
        {
            assert!(is_date(date), "{date}");
        }
        ["grade-1", "1", "T1-2", "may be", "1.5", "a-b-c", "1-2"]
            .iter()
            .for_each(|text| assert!(!is_date(text), "{text}"));
        ["0.734", "1234567", "1.2E+05", "63,5"].iter().for_each(|text| assert!(is_long_number(text), "{text}"));
        ["0", "4", "12", "1.0", "a", "-1"].iter().for_each(|text| assert!(!is_long_number(text), "{text}"));
    }

    #[test]
    fn text_of_another_encoding() {
        ["SjÃ¶gren", "grÃ¼n", "a\u{fffd}b", "donâ€™t"].iter().for_each(|text| assert!(is_garbled(text), "{text}"));
        ["Sjögren", "Ärger", "Å", "naïve", "Ménière"].iter().for_each(|text| assert!(!is_garbled(text), "{text}"));
    }
}
