// Prints, as JSON, the resource that the SDK of a version (the argument) reads from the environment.
const { envDetector } = require(process.argv[2]);

// Version 1 detects asynchronously, version 2 does not.
Promise.resolve(envDetector.detect()).then((found) => console.log(JSON.stringify(found.attributes)));
