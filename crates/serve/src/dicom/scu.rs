//! Results to a storage SCP (PS3.4, annex B).

use super::command::{Command, RESPONSE, STORE, status};
use super::delivery::{Delivery, Undelivered};
use super::implicit;
use crate::tls::TlsClientFiles;
use dicom_dictionary_std::uids;
use dicom_ul::association::CloseSocket;
use dicom_ul::pdu::{PDataValue, PDataValueType, PresentationContextResultReason};
use dicom_ul::{ClientAssociation, ClientAssociationOptions, Pdu};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For a connection, and for every read and write.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest command set of an answer.
const COMMAND_BYTES: usize = 1 << 16;
/// Warnings are successes: the object is stored (PS3.4, table B.2-1).
const WARNINGS: [u16; 3] = [0xb000, 0xb006, 0xb007];
/// The least that both sides must understand, and what our files are in.
const SYNTAXES: [&str; 2] = [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN];

/// Sends files in one association to an address and title; what comes after a broken link is left for later.
pub(super) fn send(
    (address, title): (&str, &str),
    tls: Option<&TlsClientFiles>,
    calling: &str,
    paths: Vec<PathBuf>,
) -> Vec<Delivery> {
    let options = ClientAssociationOptions::new()
        .calling_ae_title(calling)
        .called_ae_title(title)
        .with_presentation_context(uids::COMPREHENSIVE_SR_STORAGE, SYNTAXES.to_vec())
        .with_presentation_context(uids::SECONDARY_CAPTURE_IMAGE_STORAGE, SYNTAXES.to_vec())
        .with_presentation_context(uids::SEGMENTATION_STORAGE, SYNTAXES.to_vec())
        .connection_timeout(TIMEOUT)
        .read_timeout(TIMEOUT)
        .write_timeout(TIMEOUT);
    let no_link = |paths: Vec<PathBuf>, reason: String| {
        let first = paths.into_iter().take(1);
        first.map(|path| (path, Err(Undelivered::Link(reason.clone())))).collect()
    };
    let Some(tls) = tls else {
        return match options.establish(address) {
            Ok(association) => deliver(association, paths),
            Err(error) => no_link(paths, error.to_string()),
        };
    };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let config = match tls.config() {
        Ok(config) => config,
        Err(error) => return no_link(paths, error.to_string()),
    };
    let options = options.tls_config(config).server_name(tls.server_name.as_deref().unwrap_or(host));
    match options.establish_tls(address) {
        Ok(association) => deliver(association, paths),
        Err(error) => no_link(paths, error.to_string()),
    }
}

fn deliver<S: Read + Write + CloseSocket>(mut association: ClientAssociation<S>, paths: Vec<PathBuf>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for (index, path) in paths.into_iter().enumerate() {
        let sent = store(&mut association, &path, (index % 0xffff) as u16 + 1);
        let broken = matches!(sent, Err(Undelivered::Link(_)));
        deliveries.push((path, sent));
        if broken {
            let _ = association.abort();
            return deliveries;
        }
    }
    let _ = association.release();
    deliveries
}

fn store<S: Read + Write + CloseSocket>(
    association: &mut ClientAssociation<S>,
    path: &Path,
    message: u16,
) -> Result<(), Undelivered> {
    let object = |error: &dyn std::fmt::Display| Undelivered::Object(error.to_string());
    let link = |error: &dyn std::fmt::Display| Undelivered::Link(error.to_string());
    let file = std::fs::read(path).map_err(|error| link(&error))?;
    let (meta, data_set) = implicit::split(&file).ok_or_else(|| object(&"the result's file is damaged"))?;
    let class = meta.media_storage_sop_class_uid().trim_end_matches('\0').to_owned();
    let instance = meta.media_storage_sop_instance_uid().trim_end_matches('\0').to_owned();
    let accepted = association.presentation_contexts().iter().find(|context| {
        context.abstract_syntax == class && context.reason == PresentationContextResultReason::Acceptance
    });
    let Some(context) = accepted.cloned() else {
        return Err(Undelivered::Object(format!("the receiver does not take objects of SOP class {class}")));
    };
    let rewritten = match context.transfer_syntax.as_str() {
        uids::EXPLICIT_VR_LITTLE_ENDIAN => None,
        _ => Some(implicit::from_explicit(data_set).ok_or_else(|| object(&"the result's file is damaged"))?),
    };
    let bytes = rewritten.as_deref().unwrap_or(data_set);
    let command = Command::store(message, &class, &instance);
    let value = PDataValue {
        presentation_context_id: context.id,
        value_type: PDataValueType::Command,
        is_last: true,
        data: command.write(),
    };
    association.send(&Pdu::PData { data: vec![value] }).map_err(|error| link(&error))?;
    let mut data = association.send_pdata(context.id);
    data.write_all(bytes).and_then(|()| data.finish()).map_err(|error| link(&error))?;
    let answer = answer(association)?;
    if answer.field != STORE | RESPONSE || answer.message != message {
        return Err(Undelivered::Link("the receiver answered something else".to_owned()));
    }
    match answer.status {
        status::SUCCESS => Ok(()),
        code if WARNINGS.contains(&code) => Ok(()),
        // Out of resources: it may take others as little (PS3.4, table B.2-1).
        code if code & 0xff00 == status::OUT_OF_RESOURCES => {
            Err(Undelivered::Link(format!("the receiver is out of resources: status {code:04X} {}", answer.comment)))
        }
        code => Err(Undelivered::Object(format!("the receiver answered status {code:04X} {}", answer.comment))),
    }
}

fn answer<S: Read + Write + CloseSocket>(association: &mut ClientAssociation<S>) -> Result<Command, Undelivered> {
    let other = || Undelivered::Link("the receiver broke off".to_owned());
    let mut bytes = Vec::new();
    loop {
        let Pdu::PData { data } = association.receive().map_err(|error| Undelivered::Link(error.to_string()))? else {
            return Err(other());
        };
        for value in data {
            if value.value_type != PDataValueType::Command || bytes.len() + value.data.len() > COMMAND_BYTES {
                return Err(other());
            }
            bytes.extend_from_slice(&value.data);
            if value.is_last {
                return Command::read(&bytes).ok_or_else(other);
            }
        }
    }
}
