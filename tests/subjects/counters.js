// An http server: GET /<key> tells how often that key was asked for. Its counters are closures.
const counters = new Map();

function counter() {
    let count = 0;
    return () => ++count;
}

require("http").createServer((request, response) => {
    if (!counters.has(request.url))
        counters.set(request.url, counter());
    const text = String(counters.get(request.url)());
    setImmediate(() => response.end(text));
}).listen(Number(process.argv[2]), "127.0.0.1");
