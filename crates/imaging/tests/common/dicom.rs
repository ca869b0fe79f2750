//! Tiny DICOM files, written element by element.

/// How a data set is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    Implicit,
    Explicit,
    BigEndian,
}

pub(crate) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub(crate) const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
pub(crate) const RLE: &str = "1.2.840.10008.1.2.5";
pub(crate) const JPEG: &str = "1.2.840.10008.1.2.4.50";
pub(crate) const JPEG_EXTENDED: &str = "1.2.840.10008.1.2.4.51";
pub(crate) const JPEG_LOSSLESS: &str = "1.2.840.10008.1.2.4.57";
pub(crate) const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";
pub(crate) const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";
pub(crate) const HIGH_THROUGHPUT: &str = "1.2.840.10008.1.2.4.201";

/// Elements in the order in which they are added.
#[derive(Clone, Debug)]
pub(crate) struct Elements {
    pub(crate) bytes: Vec<u8>,
    writing: Writing,
}

impl Elements {
    pub(crate) fn new(writing: Writing) -> Self {
        Self { bytes: Vec::new(), writing }
    }

    fn word(&self, number: u16) -> [u8; 2] {
        if self.writing == Writing::BigEndian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn long(&self, number: u32) -> [u8; 4] {
        if self.writing == Writing::BigEndian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    /// Tag, representation and length alone.
    pub(crate) fn header(mut self, tag: u32, vr: &str, length: u32) -> Self {
        let [group, element] = [self.word((tag >> 16) as u16), self.word(tag as u16)];
        self.bytes.extend([group, element].concat());
        let long = ["OB", "OW", "SQ", "UN", "UT", "OV", "OF"].contains(&vr);
        match (self.writing, long) {
            (Writing::Implicit, _) => {}
            (_, true) => self.bytes.extend([vr.as_bytes(), &[0, 0]].concat()),
            (_, false) => {
                self.bytes.extend(vr.as_bytes());
                let length = self.word(length as u16);
                self.bytes.extend(length);
                return self;
            }
        }
        let length = self.long(length);
        self.bytes.extend(length);
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    pub(crate) fn value(self, tag: u32, vr: &str, bytes: &[u8]) -> Self {
        let odd = bytes.len() % 2;
        let pad = if matches!(vr, "UI" | "OB" | "OW" | "UN") { 0 } else { b' ' };
        self.header(tag, vr, (bytes.len() + odd) as u32).raw(bytes).raw(&vec![pad; odd])
    }

    pub(crate) fn text(self, tag: u32, vr: &str, text: &str) -> Self {
        self.value(tag, vr, text.as_bytes())
    }

    pub(crate) fn words(self, tag: u32, vr: &str, words: &[u16]) -> Self {
        let bytes: Vec<u8> = words.iter().flat_map(|&word| self.word(word)).collect();
        self.value(tag, vr, &bytes)
    }

    /// A sequence of items, lengths stated or undefined.
    pub(crate) fn sequence(self, tag: u32, items: &[Elements], stated: bool) -> Self {
        let mut content = Elements::new(self.writing);
        for item in items {
            let length = if stated { item.bytes.len() as u32 } else { u32::MAX };
            content = content.item(length).raw(&item.bytes);
            if !stated {
                content = content.delimiter(0xfffe_e00d);
            }
        }
        if stated {
            return self.value(tag, "SQ", &content.bytes);
        }
        self.header(tag, "SQ", u32::MAX).raw(&content.bytes).delimiter(0xfffe_e0dd)
    }

    pub(crate) fn item(self, length: u32) -> Self {
        let header = [self.word(0xfffe), self.word(0xe000)].concat();
        let length = self.long(length);
        self.raw(&header).raw(&length)
    }

    pub(crate) fn delimiter(self, tag: u32) -> Self {
        let header = [self.word((tag >> 16) as u16), self.word(tag as u16)].concat();
        self.raw(&header).raw(&[0; 4])
    }

    /// Pixel data in fragments behind an offset table.
    pub(crate) fn fragments(mut self, table: &[u32], fragments: &[&[u8]]) -> Self {
        let table: Vec<u8> = table.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        self = self.header(0x7fe0_0010, "OB", u32::MAX).item(table.len() as u32).raw(&table);
        for fragment in fragments {
            let odd = fragment.len() % 2;
            self = self.item((fragment.len() + odd) as u32).raw(fragment).raw(&[0][..odd]);
        }
        self.delimiter(0xfffe_e0dd)
    }

    /// Preamble, file meta group, and these elements.
    pub(crate) fn file(&self, syntax: &str) -> Vec<u8> {
        let meta = Elements::new(Writing::Explicit).text(0x0002_0010, "UI", syntax);
        let length =
            Elements::new(Writing::Explicit).value(0x0002_0000, "UL", &(meta.bytes.len() as u32).to_le_bytes());
        [&[0; 128][..], b"DICM", &length.bytes, &meta.bytes, &self.bytes].concat()
    }
}

/// The Image Pixel module of one frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image<'a> {
    pub(crate) photometric: &'a str,
    pub(crate) rows: u16,
    pub(crate) columns: u16,
    pub(crate) samples: u16,
    pub(crate) allocated: u16,
    pub(crate) stored: u16,
    pub(crate) high_bit: u16,
    pub(crate) signed: bool,
    pub(crate) planar: u16,
    pub(crate) frames: u16,
}

impl Image<'_> {
    pub(crate) fn grey(columns: u16, rows: u16, bits: u16) -> Image<'static> {
        Image {
            photometric: "MONOCHROME2",
            rows,
            columns,
            samples: 1,
            allocated: if bits > 8 { 16 } else { 8 },
            stored: bits,
            high_bit: bits - 1,
            signed: false,
            planar: 0,
            frames: 1,
        }
    }

    pub(crate) fn rgb(columns: u16, rows: u16) -> Image<'static> {
        Image { photometric: "RGB", samples: 3, ..Self::grey(columns, rows, 8) }
    }

    pub(crate) fn elements(&self, writing: Writing) -> Elements {
        let number = |elements: Elements, tag, value| elements.words(tag, "US", &[value]);
        let mut elements = Elements::new(writing).text(0x0008_0060, "CS", "OT").text(0x0010_0020, "LO", "patient 7");
        elements = number(elements, 0x0028_0002, self.samples).text(0x0028_0004, "CS", self.photometric);
        if self.samples > 1 {
            elements = number(elements, 0x0028_0006, self.planar);
        }
        elements = elements.text(0x0028_0008, "IS", &self.frames.to_string());
        for (tag, value) in [
            (0x0028_0010, self.rows),
            (0x0028_0011, self.columns),
            (0x0028_0100, self.allocated),
            (0x0028_0101, self.stored),
            (0x0028_0102, self.high_bit),
            (0x0028_0103, self.signed.into()),
        ] {
            elements = number(elements, tag, value);
        }
        elements
    }

    /// An explicit little endian file of 16-bit words.
    pub(crate) fn of_words(&self, words: &[u16]) -> Vec<u8> {
        self.elements(Writing::Explicit).words(0x7fe0_0010, "OW", words).file(EXPLICIT)
    }

    /// An explicit little endian file of bytes.
    pub(crate) fn of_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        self.elements(Writing::Explicit).value(0x7fe0_0010, "OB", bytes).file(EXPLICIT)
    }

    /// A file of compressed frames without an offset table.
    pub(crate) fn of_fragments(&self, syntax: &str, fragments: &[&[u8]]) -> Vec<u8> {
        self.elements(Writing::Explicit).fragments(&[], fragments).file(syntax)
    }
}
