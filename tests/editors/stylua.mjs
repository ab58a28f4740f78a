// Formats Lua files: node stylua.mjs MODULE OPTIONS FILE ...
// MODULE is the file of the library, OPTIONS what stylua.toml says, as JSON. Prints the formatted
// texts as one JSON list.
import { readFileSync } from 'node:fs';

const [module, options, ...files] = process.argv.slice(2);
const stylua = await import(module);

const kinds = {
  indent_type: stylua.IndentType,
  quote_style: stylua.QuoteStyle,
  collapse_simple_statement: stylua.CollapseSimpleStatement,
  syntax: stylua.LuaVersion,
};

function config() {
  const result = stylua.Config.new();
  for (const [name, value] of Object.entries(JSON.parse(options))) {
    if (!(name in result)) throw new Error(`stylua has no option ${name}`);
    const known = name in kinds ? kinds[name][value] : value;
    if (known === undefined) throw new Error(`stylua: ${name} can't be ${value}`);
    result[name] = known;
  }
  return result;
}

const format = (file) =>
  stylua.formatCode(readFileSync(file, 'utf8'), config(), null, stylua.OutputVerification.Full);

process.stdout.write(JSON.stringify(files.map(format)));
