//! A Python pickle read as data: dictionaries, lists, numbers, strings and the tensors that PyTorch's own functions make.
//! Nothing is ever called or imported; a pickle that asks for anything else is refused by the name it asks for.
//!
//! The format is that of CPython's `pickletools`, protocols 2 to 5.

/// A value by its place in [`Pickle::values`].
pub(crate) type Id = usize;

/// What the pickle builds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Nothing,
    Bool(bool),
    Int(i64),
    Float,
    Text(String),
    /// A tuple or a list.
    Items(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by module and name; only those in [`KNOWN`].
    Global(&'static str),
    /// `torch.FloatStorage` and its kin, by the key of their bytes in the archive.
    Storage {
        kind: &'static str,
        key: String,
        len: usize,
    },
    /// `torch._utils._rebuild_tensor_v2` of a storage, offset, shape and strides, in elements.
    Tensor {
        storage: Id,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    },
    /// Something without tensors that is kept as it is: an option, a scalar of numpy.
    Opaque,
}

const REBUILD: &str = "torch._utils._rebuild_tensor_v2";
const PARAMETER: &str = "torch._utils._rebuild_parameter";
const ORDERED: &str = "collections.OrderedDict";

/// Everything that a checkpoint may name. Storages hold bytes, the first functions make tensors, and the rest are the options
/// that training scripts leave in their files, which are kept as [`Value::Opaque`].
const KNOWN: [&str; 22] = [
    REBUILD,
    PARAMETER,
    ORDERED,
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.DoubleStorage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.BoolStorage",
    "torch.ByteStorage",
    "torch.Size",
    "torch.device",
    "collections.defaultdict",
    "builtins.set",
    "__builtin__.set",
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
    "pathlib.PosixPath",
];

/// Most values: a ViT's checkpoint has a few thousand, with its optimizer's state some ten thousand.
const MOST_VALUES: usize = 4 << 20;

/// A parsed pickle.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub(crate) values: Vec<Value>,
    pub(crate) root: Id,
}

impl Pickle {
    /// Parses a pickle.
    ///
    /// # Errors
    /// A sentence that names what is damaged, or what the pickle asks to call.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut machine =
            Machine { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: Vec::new() };
        let root = machine.run()?;
        Ok(Pickle { values: machine.values, root })
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: Vec<Id>,
}

impl<'a> Machine<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| format!("ends in the middle of a value at byte {}", self.at))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A little-endian unsigned number of `len` bytes, at most 8.
    fn number(&mut self, len: usize) -> Result<usize, String> {
        let bytes = self.take(len)?;
        let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).map_err(|_| format!("length {value} is too large"))
    }

    fn text(&mut self, len: usize) -> Result<String, String> {
        let bytes = self.take(len)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("text before byte {} is not UTF-8", self.at))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|byte| *byte == b'\n').ok_or("ends in the middle of a name")?;
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).map_err(|_| format!("a name before byte {} is not UTF-8", self.at))
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.values.len() >= MOST_VALUES {
            return Err(format!("holds more than {MOST_VALUES} values"));
        }
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(format!("takes a value from an empty stack before byte {}", self.at));
        }
        Ok(self.stack.remove(self.stack.len() - 1))
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| format!("reads an empty stack before byte {}", self.at))
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or_else(|| format!("no mark before byte {}", self.at))?;
        Ok(self.stack.split_off(mark))
    }

    fn remember(&mut self, slot: usize) -> Result<(), String> {
        let value = self.top()?;
        // Slots are handed out one after the other.
        if slot > self.memo.len() {
            return Err(format!("memo {slot} is out of order"));
        }
        match slot == self.memo.len() {
            true => self.memo.push(value),
            false => self.memo[slot] = value,
        }
        Ok(())
    }

    fn recall(&mut self, slot: usize) -> Result<(), String> {
        let value = *self.memo.get(slot).ok_or_else(|| format!("memo {slot} was never written"))?;
        self.stack.push(value);
        // A pickle that only recalls grows the stack without new values.
        if self.stack.len() > MOST_VALUES { Err(format!("holds more than {MOST_VALUES} values")) } else { Ok(()) }
    }

    fn run(&mut self) -> Result<Id, String> {
        loop {
            let code = self.take(1)?[0];
            match code {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(Value::Nothing)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'K' => self.integer(1)?,
                b'M' => self.integer(2)?,
                b'J' => {
                    let value = self.number(4)? as u32 as i32;
                    self.push(Value::Int(value.into()))?;
                }
                0x8a => self.long()?,
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Float)?;
                }
                b'X' => self.string(4, true)?,
                0x8c => self.string(1, true)?,
                0x8d => self.string(8, true)?,
                b'U' | b'C' => self.string(1, false)?,
                b'T' | b'B' => self.string(4, false)?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b']' | b')' => self.push(Value::Items(Vec::new()))?,
                0x8f => self.push(Value::Opaque)?,
                b't' | b'l' => {
                    let items = self.since_mark()?;
                    self.push(Value::Items(items))?;
                }
                0x85..=0x87 => {
                    let mut items = Vec::new();
                    for _ in 0x85..=code {
                        items.insert(0, self.pop()?);
                    }
                    self.push(Value::Items(items))?;
                }
                b'q' => {
                    let slot = self.number(1)?;
                    self.remember(slot)?;
                }
                b'r' => {
                    let slot = self.number(4)?;
                    self.remember(slot)?;
                }
                0x94 => self.remember(self.memo.len())?,
                b'h' => {
                    let slot = self.number(1)?;
                    self.recall(slot)?;
                }
                b'j' => {
                    let slot = self.number(4)?;
                    self.recall(slot)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' | 0x90 => {
                    let items = self.since_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let entries = self.since_mark()?;
                    self.set(&entries)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    match (self.values[module].clone(), self.values[name].clone()) {
                        (Value::Text(module), Value::Text(name)) => self.global(&module, &name)?,
                        _ => return Err("names a class by something that is no text".into()),
                    }
                }
                b'R' | 0x81 => self.call()?,
                b'b' => {
                    // State of an object; of those that are known, only options have one.
                    self.pop()?;
                    self.top()?;
                }
                b'Q' => self.persistent()?,
                b'0' => drop(self.pop()?),
                other => return Err(format!("opcode {other:#04x} at byte {} is not of a checkpoint", self.at - 1)),
            }
        }
    }

    fn integer(&mut self, len: usize) -> Result<(), String> {
        let value = self.number(len)?;
        self.push(Value::Int(value as i64))
    }

    /// `LONG1`: two's complement of as many bytes as the first says.
    fn long(&mut self) -> Result<(), String> {
        let len = self.number(1)?;
        let bytes = self.take(len)?;
        let sign = bytes.last().map_or(0, |last| if last & 0x80 == 0 { 0 } else { 0xff });
        match <[u8; 8]>::try_from((0..8).map(|i| bytes.get(i).copied().unwrap_or(sign)).collect::<Vec<_>>()) {
            Ok(word) if len <= 8 => self.push(Value::Int(i64::from_le_bytes(word))),
            _ => self.push(Value::Opaque),
        }
    }

    fn string(&mut self, width: usize, text: bool) -> Result<(), String> {
        let len = self.number(width)?;
        if text {
            let text = self.text(len)?;
            return self.push(Value::Text(text));
        }
        self.take(len)?;
        self.push(Value::Opaque)
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        let target = self.top()?;
        match &mut self.values[target] {
            Value::Items(list) => list.extend(items),
            Value::Opaque => {}
            _ => return Err("appends to something that is no list".into()),
        }
        Ok(())
    }

    fn set(&mut self, entries: &[Id]) -> Result<(), String> {
        let target = self.top()?;
        match &mut self.values[target] {
            Value::Dict(dict) if entries.len().is_multiple_of(2) => {
                dict.extend(entries.chunks_exact(2).map(|entry| (entry[0], entry[1])));
            }
            Value::Opaque => {}
            _ => return Err("sets an entry of something that is no dictionary".into()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let full = format!("{module}.{name}");
        match KNOWN.into_iter().find(|known| *known == full) {
            Some(known) => self.push(Value::Global(known)),
            None => Err(format!("asks for `{full}`; only tensors are read and nothing is ever executed")),
        }
    }

    /// `REDUCE` and `NEWOBJ`: only what makes tensors and dictionaries has a meaning.
    fn call(&mut self) -> Result<(), String> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let (Value::Items(arguments), Value::Global(callee)) = (self.values[arguments].clone(), &self.values[callee])
        else {
            return Err(format!("calls something that is no known function before byte {}", self.at));
        };
        match *callee {
            ORDERED => self.push(Value::Dict(Vec::new())),
            PARAMETER => {
                let tensor = *arguments.first().ok_or("a parameter without a tensor")?;
                self.stack.push(tensor);
                Ok(())
            }
            REBUILD => {
                let tensor = self.tensor(&arguments)?;
                self.push(tensor)
            }
            _ => self.push(Value::Opaque),
        }
    }

    fn tensor(&self, arguments: &[Id]) -> Result<Value, String> {
        let size = |id: Id| match self.values[id] {
            Value::Int(value) => usize::try_from(value).map_err(|_| format!("a tensor's size is {value}")),
            _ => Err("a tensor's size is no number".to_owned()),
        };
        let sizes = |id: Id| match &self.values[id] {
            Value::Items(items) => items.iter().map(|id| size(*id)).collect::<Result<Vec<_>, _>>(),
            _ => Err("a tensor's shape is no tuple".to_owned()),
        };
        let [storage, offset, shape, strides, ..] = arguments else {
            return Err("a tensor of too few arguments".into());
        };
        if !matches!(self.values[*storage], Value::Storage { .. }) {
            return Err("a tensor without a storage".into());
        }
        let (shape, strides) = (sizes(*shape)?, sizes(*strides)?);
        if shape.len() != strides.len() || shape.len() > 8 {
            return Err(format!("a tensor of shape {shape:?} and strides {strides:?}"));
        }
        Ok(Value::Tensor { storage: *storage, offset: size(*offset)?, shape, strides })
    }

    /// `BINPERSID` of `('storage', torch.FloatStorage, key, device, length)`.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let Value::Items(parts) = &self.values[id] else {
            return Err("a persistent value that is no storage".into());
        };
        let values: Vec<&Value> = parts.iter().map(|id| &self.values[*id]).collect();
        let [Value::Text(_), Value::Global(kind), Value::Text(key), _, Value::Int(len)] = values[..] else {
            return Err("a storage that is not described as PyTorch does".into());
        };
        let len = usize::try_from(*len).map_err(|_| format!("a storage of {len} values"))?;
        let storage = Value::Storage { kind, key: key.clone(), len };
        self.push(storage)
    }
}
