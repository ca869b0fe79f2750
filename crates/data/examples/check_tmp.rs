fn main() {
    for path in std::env::args().skip(1) {
        match melo_data::Manifest::read(path.as_ref()) {
            Ok(mut m) => {
                let d = m.digest();
                println!("{}", m.assign_splits(0, melo_data::DEFAULT_FRACTIONS).unwrap());
                println!("{}\n{d}\n", melo_data::check(&m, &|_, _| ()))
            }
            Err(e) => println!("{e}\n"),
        }
    }
}
