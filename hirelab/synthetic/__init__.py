"""Made inputs with known answers: tasks that need no images, and networks that learn them."""
