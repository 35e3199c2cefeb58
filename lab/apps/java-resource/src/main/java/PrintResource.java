import io.opentelemetry.sdk.autoconfigure.ResourceConfiguration;
import io.opentelemetry.sdk.resources.Resource;

/** Prints the resource that the SDK reads from the environment: key, tab, value on each line. */
public final class PrintResource {
    public static void main(String[] args) {
        Resource resource = ResourceConfiguration.createEnvironmentResource();
        resource.getAttributes().forEach((key, value) -> System.out.println(key.getKey() + "\t" + value));
    }
}
