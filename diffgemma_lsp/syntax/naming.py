"""Where a language declares names, and how far they hold: the words of its grammar for that.

A new language is an entry in `NAMING`. Kinds of nodes are those of its tree-sitter grammar, and
`kind.field` is the child of that name: `kind.*` any child, `kind.1` the first that is a name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


@dataclass(frozen=True, eq=False, slots=True)
class Naming:
    """package, entry: the grammar's module, and the function in it that gives it.

    functions, blocks, classes: the nodes in which a name holds that is declared there. What is
    declared at once in a class is a member of it.
    declares: what is given a name there: a name, or a pattern of names.
    heads: the names of functions and classes, which hold around them.
    members: names that are reached through an object wherever they are declared.
    labels: names of arguments and keys, which are no variables; `kind.=` in front of that sign.
    lifts: names that are declared further out, though they get a value there.
    hoists: what is declared in them holds in the function around, whatever block it stands in.
    dots: what stands between an object and a member.
    bare: members are known by their names alone within their class.
    capitals: what begins with a capital letter in a pattern is no name that it declares.
    """

    package: str
    entry: str = "language"
    functions: frozenset[str] = frozenset()
    blocks: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    declares: frozenset[str] = frozenset()
    heads: frozenset[str] = frozenset()
    members: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    lifts: frozenset[str] = frozenset()
    hoists: frozenset[str] = frozenset()
    dots: tuple[str, ...] = (".", "::")
    bare: bool = False
    capitals: bool = False


_PYTHON = Naming(
    "tree_sitter_python",
    functions=words("function_definition lambda"),
    blocks=words(
        "module list_comprehension set_comprehension dictionary_comprehension generator_expression"
    ),
    classes=words("class_definition"),
    declares=words("""
        parameters.* lambda_parameters.* assignment.left named_expression.name for_statement.left
        for_in_clause.left as_pattern.alias aliased_import.alias import_statement.name
        import_from_statement.name type_parameter.*
    """),
    heads=words("function_definition.name class_definition.name"),
    labels=words("keyword_argument.name aliased_import.name import_from_statement.module_name"),
    lifts=words("global_statement.* nonlocal_statement.*"),
)

_JAVASCRIPT = Naming(
    "tree_sitter_javascript",
    functions=words("""
        function_declaration function_expression generator_function generator_function_declaration
        arrow_function method_definition
    """),
    blocks=words("""
        program statement_block for_statement for_in_statement catch_clause switch_body
        class_static_block
    """),
    classes=words("class_body"),
    declares=words("""
        formal_parameters.* arrow_function.parameter variable_declarator.name for_in_statement.left
        catch_clause.parameter import_clause.* namespace_import.* import_specifier.alias
        import_specifier.name function_expression.name field_definition.property
    """),
    heads=words("""
        function_declaration.name generator_function_declaration.name class_declaration.name
        method_definition.name
    """),
    hoists=words("variable_declaration"),
)


_TYPESCRIPT = Naming(
    "tree_sitter_typescript",
    "language_typescript",
    functions=_JAVASCRIPT.functions
    | words("""
        function_signature method_signature abstract_method_signature function_type call_signature
        construct_signature constructor_type
    """),
    blocks=_JAVASCRIPT.blocks,
    classes=words("class_body interface_body object_type enum_body"),
    declares=_JAVASCRIPT.declares
    | words("""
        public_field_definition.name property_signature.name type_parameter.name enum_body.name
        enum_assignment.name
    """),
    heads=_JAVASCRIPT.heads
    | words("""
        abstract_class_declaration.name function_signature.name method_signature.name
        abstract_method_signature.name interface_declaration.name type_alias_declaration.name
        enum_declaration.name internal_module.name
    """),
    hoists=_JAVASCRIPT.hoists,
)

_JAVA = Naming(
    "tree_sitter_java",
    functions=words("""
        method_declaration constructor_declaration compact_constructor_declaration lambda_expression
    """),
    blocks=words("""
        program block constructor_body for_statement enhanced_for_statement if_statement
        try_with_resources_statement catch_clause switch_block_statement_group switch_rule
    """),
    classes=words("class_body interface_body enum_body annotation_type_body record_declaration"),
    declares=words("""
        formal_parameter.name variable_declarator.name enhanced_for_statement.name resource.name
        catch_formal_parameter.name lambda_expression.parameters instanceof_expression.name
        type_pattern.1 enum_constant.name type_parameter.*
    """),
    heads=words("""
        method_declaration.name class_declaration.name interface_declaration.name
        enum_declaration.name record_declaration.name annotation_type_declaration.name
    """),
    labels=words("element_value_pair.key"),
    bare=True,
)

_GO = Naming(
    "tree_sitter_go",
    functions=words(
        "function_declaration method_declaration func_literal function_type method_elem"
    ),
    blocks=words("""
        source_file block if_statement for_statement expression_switch_statement
        type_switch_statement expression_case default_case type_case communication_case
    """),
    classes=words("struct_type interface_type"),
    declares=words("""
        parameter_declaration.name variadic_parameter_declaration.name var_spec.name const_spec.name
        short_var_declaration.left range_clause.left receive_statement.left field_declaration.name
        type_switch_statement.alias import_spec.name type_parameter_declaration.name
    """),
    heads=words("function_declaration.name type_spec.name method_elem.name"),
    members=words("method_declaration.name"),
    labels=words("keyed_element.key"),
)

_RUST = Naming(
    "tree_sitter_rust",
    functions=words("function_item function_signature_item closure_expression"),
    blocks=words("""
        source_file block mod_item match_arm if_expression while_expression for_expression
    """),
    classes=words("impl_item trait_item struct_item enum_item union_item"),
    declares=words("""
        parameter.pattern closure_parameters.* let_declaration.pattern let_condition.pattern
        match_arm.pattern for_expression.pattern const_item.name static_item.name
        field_declaration.name enum_variant.name use_as_clause.alias type_parameter.name
    """),
    heads=words("""
        function_item.name function_signature_item.name struct_item.name enum_item.name
        union_item.name trait_item.name type_item.name mod_item.name
    """),
    labels=words("field_initializer.field use_as_clause.path"),
    capitals=True,
)

_C = Naming(
    "tree_sitter_c",
    functions=words("function_definition"),
    blocks=words("""
        translation_unit compound_statement for_statement if_statement while_statement
        switch_statement
    """),
    classes=words("field_declaration_list"),
    declares=words("""
        parameter_declaration.declarator declaration.declarator field_declaration.declarator
        type_definition.declarator enumerator.name preproc_def.name
    """),
    heads=words("""
        function_declarator.declarator struct_specifier.name union_specifier.name
        enum_specifier.name preproc_function_def.name
    """),
    dots=(".", "->", "::"),
)

_CPP = Naming(
    "tree_sitter_cpp",
    functions=words("function_definition lambda_expression"),
    blocks=_C.blocks
    | words("namespace_definition template_declaration for_range_loop catch_clause"),
    classes=_C.classes,
    declares=_C.declares
    | words("""
        optional_parameter_declaration.declarator variadic_parameter_declaration.declarator
        for_range_loop.declarator lambda_capture_initializer.left alias_declaration.name
        type_parameter_declaration.*
    """),
    heads=_C.heads | words("class_specifier.name"),
    members=words("qualified_identifier.name"),
    dots=_C.dots,
    bare=True,
)

_CSHARP = Naming(
    "tree_sitter_c_sharp",
    functions=words("""
        method_declaration constructor_declaration local_function_statement lambda_expression
        anonymous_method_expression operator_declaration indexer_declaration delegate_declaration
    """),
    blocks=words("""
        compilation_unit namespace_declaration block for_statement foreach_statement catch_clause
        using_statement query_expression switch_section switch_expression_arm accessor_declaration
    """),
    classes=words("""
        class_declaration struct_declaration interface_declaration record_declaration
        enum_declaration
    """),
    declares=words("""
        parameter.name parameter_list.name lambda_expression.parameters variable_declarator.name
        foreach_statement.left catch_declaration.name declaration_pattern.name
        declaration_expression.name from_clause.name let_clause.1 property_declaration.name
        enum_member_declaration.name type_parameter.name
    """),
    heads=words("""
        method_declaration.name local_function_statement.name delegate_declaration.name
        class_declaration.name struct_declaration.name interface_declaration.name
        record_declaration.name enum_declaration.name
    """),
    labels=words("argument.name"),
    bare=True,
)

_KOTLIN = Naming(
    "tree_sitter_kotlin",
    functions=words(
        "function_declaration secondary_constructor anonymous_function lambda_literal setter"
    ),
    blocks=words("source_file block for_statement catch_block when_expression"),
    classes=words("class_declaration object_declaration companion_object"),
    declares=words("""
        parameter.1 class_parameter.1 variable_declaration.1 catch_block.1 type_parameter.*
        enum_entry.1
    """),
    heads=words("function_declaration.name class_declaration.name object_declaration.name"),
    labels=words("value_argument.="),
    bare=True,
)

_SWIFT = Naming(
    "tree_sitter_swift",
    functions=words("""
        function_declaration init_declaration protocol_function_declaration lambda_literal
        subscript_declaration computed_setter
    """),
    blocks=words("""
        source_file statements if_statement for_statement while_statement do_statement catch_block
        switch_entry
    """),
    classes=words("class_body protocol_body enum_class_body"),
    declares=words("""
        parameter.name lambda_parameter.name pattern.bound_identifier property_declaration.name
        for_statement.item if_statement.bound_identifier guard_statement.bound_identifier
        while_statement.bound_identifier enum_entry.name type_parameter.*
    """),
    heads=words("""
        function_declaration.name protocol_function_declaration.name class_declaration.name
        protocol_declaration.name typealias_declaration.name
    """),
    labels=words("value_argument_label.* parameter.external_name"),
    bare=True,
)

NAMING = {
    "python": _PYTHON,
    "javascript": _JAVASCRIPT,
    "javascriptreact": _JAVASCRIPT,
    "typescript": _TYPESCRIPT,
    "typescriptreact": replace(_TYPESCRIPT, entry="language_tsx"),
    "java": _JAVA,
    "go": _GO,
    "rust": _RUST,
    "c": _C,
    "cpp": _CPP,
    "csharp": _CSHARP,
    "kotlin": _KOTLIN,
    "swift": _SWIFT,
}
"""By what LSP calls the language. Dart has none: the grammar that is packaged knows no node that
holds a function's head and its body."""
