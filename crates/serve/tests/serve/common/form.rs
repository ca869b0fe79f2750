//! Forms as browsers send them.

/// A field of a form: its name, the file's name for images, and the content.
pub(crate) type Field<'a> = (&'a str, Option<&'a str>, &'a [u8]);

/// A form as media type and body.
pub(crate) fn form(fields: &[Field<'_>]) -> (String, Vec<u8>) {
    const BOUNDARY: &str = "----melo-test-boundary";
    let mut body = Vec::new();
    for (name, file, content) in fields {
        let file = file.map_or_else(String::new, |file| format!("; filename=\"{file}\""));
        body.extend(format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
        body.extend_from_slice(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    (format!("multipart/form-data; boundary={BOUNDARY}"), body)
}
