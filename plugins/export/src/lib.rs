use formwork_plugin::{Error, Exporter, Form, Submission, host::sinks::Sink};
struct V;
impl Exporter for V {
    fn prepare(_f: Form, _s: String) -> Result<Self, Error> { Ok(V) }
    fn begin(&self, sink: &Sink) -> Result<(), Error> { sink.write(b"x")?; Ok(()) }
    fn export(&self, s: Vec<Submission>, _sink: &Sink) -> Result<u32, Error> { Ok(s.len() as u32) }
    fn end(&self, _sink: &Sink) -> Result<(), Error> { Ok(()) }
}
formwork_plugin::export_exporter!(V);
