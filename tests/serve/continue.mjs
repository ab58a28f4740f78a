// Asks a server for a middle as Continue does, with Continue's adapters:
//     node continue.mjs ADAPTERS CONFIGURATION FUNCTION BODY
// CONFIGURATION is that of a model in Continue's config.yaml, and FUNCTION what its autocomplete calls of
// the adapter: fimStream, or completionStream where it writes a model's marks itself. Prints the text.
const [adapters, configuration, name, body] = process.argv.slice(2);
const { constructLlmApi } = await import(adapters);
const api = constructLlmApi(JSON.parse(configuration));
let found = '';
for await (const { choices } of api[name](JSON.parse(body), new AbortController().signal)) {
  found += choices[0]?.delta?.content ?? choices[0]?.text ?? '';
}
console.log(JSON.stringify(found));
