//! The operator's commands.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    print!("{}", otelagent_operator::api::crd_yaml()?);
    Ok(())
}
