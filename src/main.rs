//! The operator's commands.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    use kube::CustomResourceExt;
    print!("{}", serde_saphyr::to_string(&otelagent_operator::api::OtelAgent::crd())?);
    Ok(())
}
