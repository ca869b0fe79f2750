// What the check feeds to the server: pictures, a DICOM file, plug-ins with other cards. Nothing here comes from a patient.

import zlib from 'node:zlib';

/** A grey value in 0 to 1 of something round with a bright spot. */
function phantom(x, y, seed) {
  const [u, v] = [x - 0.5, y - 0.5];
  const body = Math.exp(-((u * u) / 0.09 + (v * v) / 0.14));
  const spot = Math.exp(-(((u - 0.15) ** 2 + (v + 0.1 - 0.02 * seed) ** 2) / 0.004));
  const ribs = 0.06 * Math.sin(34 * y + 5 * u * u);
  return Math.min(1, Math.max(0, 0.08 + 0.6 * body + 0.4 * spot + ribs * body));
}

export function png(width, height, seed = 0) {
  const rows = Buffer.alloc(height * (width * 3 + 1));
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) rows.fill(255 * phantom(x / width, y / height, seed), y * (width * 3 + 1) + 1 + x * 3, y * (width * 3 + 1) + 4 + x * 3);
  }
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    return Buffer.concat([u32(data.length), body, u32(zlib.crc32(body))]);
  };
  const head = Buffer.concat([u32(width), u32(height), Buffer.from([8, 2, 0, 0, 0])]);
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', head), chunk('IDAT', zlib.deflateSync(rows)), chunk('IEND', Buffer.alloc(0))]);
}

function u32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** 12 bits in 16, explicit VR little endian (PS3.5, 7.1.2); every frame is another picture. */
export function dicom(columns, rows, frames = 1) {
  const pixels = Buffer.alloc(frames * columns * rows * 2);
  for (let frame = 0; frame < frames; frame += 1) {
    for (let y = 0; y < rows; y += 1) {
      for (let x = 0; x < columns; x += 1) pixels.writeUInt16LE(Math.round(4095 * phantom(x / columns, y / rows, 3 + 9 * frame)), ((frame * rows + y) * columns + x) * 2);
    }
  }
  const uid = '2.25.329800735698586629295641978511506172918';
  const rest = [
    element(2, 0x01, 'OB', Buffer.from([0, 1])),
    element(2, 0x02, 'UI', '1.2.840.10008.5.1.4.1.1.7'),
    element(2, 0x03, 'UI', uid),
    element(2, 0x10, 'UI', '1.2.840.10008.1.2.1'),
  ];
  const size = Buffer.alloc(4);
  size.writeUInt32LE(Buffer.concat(rest).length);
  return Buffer.concat([
    Buffer.alloc(128), Buffer.from('DICM'), element(2, 0, 'UL', size), ...rest,
    element(8, 0x16, 'UI', '1.2.840.10008.5.1.4.1.1.7'), element(8, 0x18, 'UI', uid), element(8, 0x60, 'CS', 'OT'),
    element(0x28, 0x02, 'US', u16(1)), element(0x28, 0x04, 'CS', 'MONOCHROME2'),
    ...(frames > 1 ? [element(0x28, 0x08, 'IS', String(frames))] : []), element(0x28, 0x10, 'US', u16(rows)),
    element(0x28, 0x11, 'US', u16(columns)), element(0x28, 0x100, 'US', u16(16)), element(0x28, 0x101, 'US', u16(12)),
    element(0x28, 0x102, 'US', u16(11)), element(0x28, 0x103, 'US', u16(0)), element(0x28, 0x1050, 'DS', '2047.5'),
    element(0x28, 0x1051, 'DS', '4095'), element(0x7fe0, 0x10, 'OW', pixels),
  ]);
}

function u16(value) {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

function element(group, number, kind, value) {
  let bytes = Buffer.from(value);
  if (bytes.length % 2) bytes = Buffer.concat([bytes, Buffer.from(kind === 'UI' ? '\0' : ' ')]);
  const long = ['OB', 'OW'].includes(kind);
  const size = Buffer.alloc(long ? 6 : 2);
  if (long) size.writeUInt32LE(bytes.length, 2);
  else size.writeUInt16LE(bytes.length);
  return Buffer.concat([u16(group), u16(number), Buffer.from(kind), size, bytes]);
}

const CARD = 'melo.card';

/** The card of a plug-in file. */
export function cardOf(file) {
  return JSON.parse(header(file).__metadata__[CARD]);
}

/** The same weights under another card. */
export function withCard(file, change) {
  const head = header(file);
  head.__metadata__[CARD] = JSON.stringify(change(cardOf(file)));
  const text = Buffer.from(JSON.stringify(head));
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, ' ')]);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([size, padded, file.subarray(8 + Number(file.readBigUInt64LE(0)))]);
}

const header = file => JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE(0))).toString());
