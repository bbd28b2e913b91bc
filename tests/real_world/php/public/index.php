<?php
require __DIR__ . '/../vendor/autoload.php';

header('Content-Type: application/json');
echo json_encode(['shout' => Shout\loud($_GET['say'] ?? 'grüß dich'), 'limit' => ini_get('memory_limit')]), "\n";
