"""Meta-training problems: families, budgets, recipes, shapes of networks."""
